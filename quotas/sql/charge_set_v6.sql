-- Write a set of orders in one round trip and one commit: settlements first, so that what they free can be held, then
-- renewals, then holds and checks. Called by quotas/sets.py; the rules are those of quotas/charging.py.
--
-- Rendered from charge_set.template.sql by `python -m quotas.charge_set`, and not to be edited once it is installed: a
-- change is a new version with a migration of its own (docs/developers.md, "The set function").
--
-- Locking comes first and in a statement of its own, because the snapshot of the statement that locks is older than the
-- lock: every wallet of the set is locked, in one order for all callers; each later statement sees what is there now.
--
-- `wallets` are those that the caller has seen these keys spend from; with `are_all` they stand for every order, and
-- none is looked for. An order whose wallet turns out not to be locked is left.
--
-- An order without an answer was left as it is: a settlement whose hold is gone, whose member was deleted, or whose
-- cost is beyond the hold.
--
-- Orders are arrays, one for each column, because reading one as JSON took as long as writing it.
CREATE OR REPLACE FUNCTION quotas_charge_set(
    moment timestamptz, wallets uuid[], are_all boolean,

    settled_place int[], settled_record uuid[], settled_space bigint[], settled_request uuid[],
    settled_cost bigint[], settled_input_tokens bigint[], settled_cached_tokens bigint[],
    settled_output_tokens bigint[], settled_images bigint[], settled_seconds bigint[],
    settled_price jsonb[], settled_duration_ms int[], settled_first_token_ms int[],
    settled_status smallint[], settled_code text[], settled_is_estimated boolean[],

    asked_place int[], asked_record uuid[], asked_request uuid[], asked_space bigint[],
    asked_hash text[], asked_address inet[], asked_model text[], asked_least bigint[],
    asked_most bigint[], asked_lifetime_s int[], asked_status smallint[], asked_code text[],

    renewed_place int[], renewed_space bigint[], renewed_request uuid[],
    renewed_delivered_bytes bigint[], renewed_accrued bigint[], renewed_lifetime_s int[],

    settled_quantities jsonb[] DEFAULT '{}', settled_details jsonb[] DEFAULT '{}',
    settled_upstream_cost bigint[] DEFAULT '{}', asked_usual bigint[] DEFAULT '{}',
    asked_details jsonb[] DEFAULT '{}'
)
RETURNS TABLE (
    place int, outcome text, nanos bigint, free_nanos bigint, spent_nanos bigint, limit_nanos bigint,
    models text, spent_from text
)
LANGUAGE plpgsql
-- A set is small and every look-up has its index: by statistics of a moment when a table was small, a plan would read
-- all of it, and all dead holds. For the same reason a look-up is a subquery with a LIMIT, which is not made a join; a
-- row that has an id is found by it alone (no index serves IS NOT DISTINCT FROM) and its space then checked; and each
-- side of an OR is a branch of its own, which has its index.
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    ask record;
    wallet uuid;
    free bigint;
    keys uuid[];
    key_frees bigint[];
    at int;
    key_free bigint;
    granted bigint;
    reachable bigint;
    refusal text;
    -- What is granted, one place for each hold.
    requests uuid[] := '{}';
    spaces bigint[] := '{}';
    wallets_held uuid[] := '{}';
    users bigint[] := '{}';
    key_ids uuid[] := '{}';
    key_names text[] := '{}';
    model_names text[] := '{}';
    amounts bigint[] := '{}';
    lifetimes int[] := '{}';
    refused uuid[] := '{}';
BEGIN
    IF NOT are_all THEN
        wallets := wallets || ARRAY(
            SELECT h.wallet_id
            FROM unnest(settled_space, settled_request) AS s(space, request)
            CROSS JOIN LATERAL (SELECT * FROM quotas_hold h WHERE h.id = s.request LIMIT 1) h
            WHERE h.space_id = s.space
            UNION ALL
            SELECT own.id
            FROM unnest(asked_space, asked_hash) AS a(space, hash)
            CROSS JOIN LATERAL (
                SELECT k.space_id, k.user_id FROM accounts_apikey k
                WHERE k.space_id = a.space AND k.hash = a.hash AND k.deleted_at IS NULL
                UNION ALL
                SELECT k.space_id, k.user_id FROM accounts_apikey k
                WHERE k.space_id = a.space AND k.old_hash = a.hash AND k.old_hash <> '' AND k.old_until > moment
                    AND k.deleted_at IS NULL
                LIMIT 1
            ) k
            JOIN accounts_user u ON u.id = k.user_id
            CROSS JOIN LATERAL (
                SELECT w.id FROM quotas_wallet w
                WHERE u.role <> 'manager' AND w.user_id = u.id AND w.space_id IS NOT DISTINCT FROM k.space_id
                UNION ALL
                SELECT w.id FROM quotas_wallet w
                WHERE u.role = 'manager' AND w.kind = 'pool' AND w.space_id = k.space_id
                LIMIT 1
            ) own
        );
    END IF;
    PERFORM FROM quotas_wallet w
    WHERE w.id = ANY (wallets)
    ORDER BY w.space_id, w.id
    FOR NO KEY UPDATE;

    IF settled_place <> '{}' THEN
        RETURN QUERY
        WITH ended AS MATERIALIZED (
            SELECT
                s.*, h.wallet_id, h.user_id, h.key_id, h.key_name, h.model, h.amount, u.username,
                CASE WHEN s.cost > 0 OR s.status < 400 THEN 'consume' ELSE 'error' END AS kind,
                w.total - w.allocated - w.spent - w.held
                    + sum(h.amount - s.cost) OVER (PARTITION BY h.wallet_id ORDER BY s.place)::bigint AS free
            FROM unnest(
                settled_place, settled_record, settled_space, settled_request, settled_cost, settled_input_tokens,
                settled_cached_tokens, settled_output_tokens, settled_images, settled_seconds, settled_price,
                settled_duration_ms, settled_first_token_ms, settled_status, settled_code, settled_is_estimated,
                settled_quantities, settled_details, settled_upstream_cost
            ) AS s(
                place, record, space, request, cost, input_tokens, cached_tokens, output_tokens, images, seconds,
                price, duration_ms, first_token_ms, status, code, is_estimated, quantities, details, upstream_cost
            )
            CROSS JOIN LATERAL (SELECT * FROM quotas_hold h WHERE h.id = s.request LIMIT 1) h
            JOIN quotas_wallet w ON w.id = h.wallet_id AND w.space_id IS NOT DISTINCT FROM h.space_id
            JOIN accounts_user u ON u.id = h.user_id
            WHERE h.space_id = s.space AND w.id = ANY (wallets) AND NOT w.is_closed AND s.cost <= h.amount
        ), logged AS (
            INSERT INTO usage_usagerecord (
                id, space_id, wallet_id, user_id, username, key_id, key_name, model, kind, request_id, input_tokens,
                cached_tokens, output_tokens, images, seconds, quantities, price, details, upstream_cost, held, cost,
                shortfall, available_after, is_estimated, duration_ms, first_token_ms, status, code
            )
            SELECT
                record, space, wallet_id, user_id, username, key_id, key_name, model, kind, request, input_tokens,
                cached_tokens, output_tokens, images, seconds, coalesce(quantities, '{}'), price,
                coalesce(details, '{}'), upstream_cost, amount, cost,
                0, free, is_estimated, duration_ms, first_token_ms, status, code
            FROM ended
        ), rolled_up AS (
            INSERT INTO usage_hourlyusage AS total (
                id, space_id, user_id, key_id, model, hour, requests, errors, input_tokens, output_tokens,
                error_input_tokens, error_output_tokens, cost
            )
            SELECT
                gen_random_uuid(), space, user_id, key_id, model, date_trunc('hour', moment, 'UTC'), count(*),
                count(*) FILTER (WHERE kind = 'error'), sum(input_tokens), sum(output_tokens),
                coalesce(sum(input_tokens) FILTER (WHERE kind = 'error'), 0),
                coalesce(sum(output_tokens) FILTER (WHERE kind = 'error'), 0), sum(cost)
            FROM ended
            GROUP BY space, user_id, key_id, model
            ON CONFLICT (space_id, user_id, key_id, model, hour) DO UPDATE SET
                requests = total.requests + excluded.requests,
                errors = total.errors + excluded.errors,
                input_tokens = total.input_tokens + excluded.input_tokens,
                output_tokens = total.output_tokens + excluded.output_tokens,
                error_input_tokens = total.error_input_tokens + excluded.error_input_tokens,
                error_output_tokens = total.error_output_tokens + excluded.error_output_tokens,
                cost = total.cost + excluded.cost
        ), freed AS (
            DELETE FROM quotas_hold h USING ended e WHERE h.id = e.request AND h.space_id IS NOT DISTINCT FROM e.space
        ), charged AS (
            UPDATE quotas_wallet w
            SET held = w.held - due.amount, spent = w.spent + due.cost
            FROM (SELECT space, wallet_id, sum(amount) AS amount, sum(cost) AS cost FROM ended GROUP BY 1, 2) due
            WHERE w.id = due.wallet_id AND w.space_id IS NOT DISTINCT FROM due.space
        ), counted AS (
            UPDATE accounts_apikey k
            SET held = k.held - due.amount, spent = k.spent + due.cost, last_used_at = moment
            FROM (SELECT space, key_id, sum(amount) AS amount, sum(cost) AS cost FROM ended GROUP BY 1, 2) due
            WHERE k.id = due.key_id AND k.space_id IS NOT DISTINCT FROM due.space
        )
        SELECT
            place, 'settled' AS outcome, cost AS nanos, free AS free_nanos, NULL::bigint AS spent_nanos,
            NULL::bigint AS limit_nanos, NULL::text AS models, NULL::text AS spent_from
        FROM ended;
    END IF;

    IF renewed_place <> '{}' THEN
        RETURN QUERY
        UPDATE quotas_hold h
        SET delivered_bytes = greatest(h.delivered_bytes, r.delivered_bytes),
            accrued = greatest(h.accrued, least(r.accrued, h.amount)),
            expires_at = moment + make_interval(secs => r.lifetime_s)
        FROM unnest(
            renewed_place, renewed_space, renewed_request, renewed_delivered_bytes, renewed_accrued,
            renewed_lifetime_s
        ) AS r(place, space, request, delivered_bytes, accrued, lifetime_s)
        WHERE h.id = r.request AND h.space_id IS NOT DISTINCT FROM r.space
        RETURNING
            r.place, 'renewed' AS outcome, h.amount AS nanos, NULL::bigint AS free_nanos, NULL::bigint AS spent_nanos,
            NULL::bigint AS limit_nanos, NULL::text AS models, NULL::text AS spent_from;
    END IF;

    IF asked_place = '{}' THEN
        RETURN;
    END IF;

    FOR ask IN
        SELECT
            a.*, k.id AS key_id, k.name AS key_name, k.limit AS key_limit, k.spent AS key_spent,
            k.limit - k.spent - k.held AS key_free, k.models_allowed, u.id AS user_id, u.username,
            w.id AS wallet_id, w.total, w.spent, w.total - w.allocated - w.spent - w.held AS free,
            CASE
                WHEN w.id IS NULL THEN 'invalid_api_key'
                WHEN s.suspended_at IS NOT NULL THEN 'space_suspended'
                WHEN NOT u.is_active THEN 'account_disabled'
                WHEN NOT k.is_enabled THEN 'key_disabled'
                WHEN k.expires_at <= moment THEN 'key_expired'
                WHEN k.ips_allowed <> '[]' AND NOT coalesce((SELECT bool_or(a.address <<= network::inet) FROM
                    jsonb_array_elements_text(k.ips_allowed) AS networks(network)), false) THEN 'ip_not_allowed'
                WHEN a.model <> '' AND k.models_allowed <> '[]' AND NOT k.models_allowed ? a.model THEN
                    'model_not_allowed'
            END AS refusal
        FROM unnest(
            asked_place, asked_record, asked_request, asked_space, asked_hash, asked_address, asked_model,
            asked_least, asked_most, asked_lifetime_s, asked_status, asked_code, asked_usual, asked_details
        ) AS a(place, record, request, space, hash, address, model, least, most, lifetime_s, status, code, usual,
        details)
        LEFT JOIN LATERAL (
            SELECT * FROM accounts_apikey k
            WHERE k.space_id = a.space AND k.hash = a.hash AND k.deleted_at IS NULL
            UNION ALL
            SELECT * FROM accounts_apikey k
            WHERE k.space_id = a.space AND k.old_hash = a.hash AND k.old_hash <> '' AND k.old_until > moment
                AND k.deleted_at IS NULL
            LIMIT 1
        ) k ON true
        LEFT JOIN accounts_user u ON u.id = k.user_id
        LEFT JOIN tenants_space s ON s.id = k.space_id
        LEFT JOIN LATERAL (
            SELECT * FROM quotas_wallet w
            WHERE u.role <> 'manager' AND w.user_id = u.id AND w.space_id IS NOT DISTINCT FROM k.space_id
            UNION ALL
            SELECT * FROM quotas_wallet w
            WHERE u.role = 'manager' AND w.kind = 'pool' AND w.space_id = k.space_id
            LIMIT 1
        ) w ON true
        ORDER BY w.space_id, w.id, a.place
    LOOP
        -- An unknown key has no wallet, and is refused without one.
        CONTINUE WHEN ask.wallet_id IS NOT NULL AND ask.wallet_id <> ALL (wallets);
        IF ask.wallet_id IS DISTINCT FROM wallet THEN
            wallet := ask.wallet_id;
            free := ask.free;
            keys := '{}';
            key_frees := '{}';
        END IF;
        at := array_position(keys, ask.key_id);
        IF at IS NULL THEN
            keys := keys || ask.key_id;
            key_frees := key_frees || ask.key_free;
            at := cardinality(keys);
        END IF;
        key_free := key_frees[at];
        refusal := ask.refusal;
        granted := 0;
        IF refusal IS NULL AND ask.most > 0 THEN
            -- LEAST passes over the NULL of a key without a limit.
            reachable := least(free, key_free);
            IF ask.usual > 0 THEN
                reachable := least(reachable, greatest(ask.usual, reachable / 4));
            END IF;
            granted := least(ask.most, greatest(ask.least, reachable));
            IF granted > 0 THEN
                refusal := CASE
                    WHEN granted > free THEN 'insufficient_quota'
                    WHEN granted > key_free THEN 'key_limit_reached'
                END;
            END IF;
        END IF;

        place := ask.place;
        outcome := coalesce(refusal, 'allowed');
        nanos := granted;
        models := ask.models_allowed::text;
        spent_from := CASE WHEN NOT are_all THEN ask.wallet_id::text END;
        IF refusal = 'key_limit_reached' THEN
            free_nanos := greatest(key_free, 0);
            spent_nanos := ask.key_spent;
            limit_nanos := ask.key_limit;
        ELSE
            free_nanos := free;
            spent_nanos := ask.spent;
            limit_nanos := ask.total;
        END IF;
        RETURN NEXT;

        -- A check has no lifetime; a hold has one even if it is of nothing, as for a free model.
        IF refusal IS NULL AND ask.lifetime_s > 0 THEN
            free := free - granted;
            key_frees[at] := key_free - granted;
            requests := requests || ask.request;
            spaces := spaces || ask.space;
            wallets_held := wallets_held || ask.wallet_id;
            users := users || ask.user_id;
            key_ids := key_ids || ask.key_id;
            key_names := key_names || ask.key_name;
            model_names := model_names || ask.model;
            amounts := amounts || granted;
            lifetimes := lifetimes || ask.lifetime_s;
        ELSIF ask.wallet_id IS NOT NULL AND coalesce(refusal, ask.code) <> ''
            AND (ask.model <> '' OR ask.code <> '')
        THEN
            refused := refused || ask.record;
            INSERT INTO usage_usagerecord (
                id, space_id, wallet_id, user_id, username, key_id, key_name, model, kind, request_id, input_tokens,
                cached_tokens, output_tokens, images, seconds, quantities, price, details, held, cost, shortfall,
                available_after, is_estimated, duration_ms, status, code
            ) VALUES (
                ask.record, ask.space, ask.wallet_id, ask.user_id, ask.username, ask.key_id, ask.key_name, ask.model,
                'error', ask.request, 0, 0, 0, 0, 0, '{}', '{}',
                coalesce(ask.details, '{}') || CASE
                    WHEN refusal IN ('insufficient_quota', 'key_limit_reached') THEN jsonb_build_object(
                        'limit', limit_nanos, 'spent', spent_nanos, 'available', free_nanos, 'amount', granted
                    )
                    ELSE '{}'
                END,
                0, 0, 0, free, false, 0,
                CASE
                    WHEN refusal IS NULL THEN ask.status
                    WHEN refusal IN ('invalid_api_key', 'key_disabled', 'key_expired') THEN 401
                    WHEN refusal IN ('space_suspended', 'account_disabled', 'ip_not_allowed', 'model_not_allowed') THEN
                        403
                    WHEN refusal IN ('insufficient_quota', 'key_limit_reached') THEN 429
                END,
                coalesce(refusal, ask.code)
            );
        END IF;
    END LOOP;

    IF requests <> '{}' THEN
        INSERT INTO quotas_hold (
            id, space_id, wallet_id, user_id, key_id, key_name, model, amount, accrued, delivered_bytes,
            created_at, expires_at
        )
        SELECT
            request, space, wallet_id, user_id, key_id, key_name, model, amount, 0, 0,
            moment, moment + make_interval(secs => lifetime_s)
        FROM unnest(
            requests, spaces, wallets_held, users, key_ids, key_names, model_names, amounts, lifetimes
        ) AS made(request, space, wallet_id, user_id, key_id, key_name, model, amount, lifetime_s);

        UPDATE quotas_wallet w
        SET held = w.held + due.amount
        FROM (
            SELECT space, wallet_id, sum(amount) AS amount
            FROM unnest(spaces, wallets_held, amounts) AS made(space, wallet_id, amount)
            GROUP BY 1, 2
        ) due
        WHERE w.id = due.wallet_id AND w.space_id IS NOT DISTINCT FROM due.space;

        UPDATE accounts_apikey k
        SET held = k.held + due.amount, last_used_at = moment
        FROM (
            SELECT space, key_id, sum(amount) AS amount
            FROM unnest(spaces, key_ids, amounts) AS made(space, key_id, amount)
            GROUP BY 1, 2
        ) due
        WHERE k.id = due.key_id AND k.space_id IS NOT DISTINCT FROM due.space;
    END IF;

    IF refused <> '{}' THEN
        INSERT INTO usage_hourlyusage AS total (
            id, space_id, user_id, key_id, model, hour, requests, errors, input_tokens, output_tokens,
            error_input_tokens, error_output_tokens, cost
        )
        SELECT
            gen_random_uuid(), space_id, user_id, key_id, model, date_trunc('hour', moment, 'UTC'), count(*), count(*),
            0, 0, 0, 0, 0
        FROM usage_usagerecord
        WHERE id = ANY (refused)
            -- All of one moment, so that they are looked for in its month alone.
            AND id BETWEEN (left(refused[1]::text, 18) || '-0000-000000000000')::uuid
                AND (left(refused[1]::text, 18) || '-ffff-ffffffffffff')::uuid
        GROUP BY space_id, user_id, key_id, model
        ON CONFLICT (space_id, user_id, key_id, model, hour) DO UPDATE SET
            requests = total.requests + excluded.requests,
            errors = total.errors + excluded.errors;
    END IF;
END $$;

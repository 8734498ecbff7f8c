-- What a set of requests does to wallets, in one round trip and one commit: settlements first, so that what they free
-- can be held, then renewals and asks. Called by quotas/sets.py; the rules are those of quotas/charging.py.
--
-- Two steps, because what is decided in the statement that locks is decided by a snapshot older than the lock: first
-- every wallet of the set is locked, in one order for all tellers; each later statement then sees what is there now.
--
-- A settlement without an answer (its hold is gone, its member deleted, its cost beyond the hold) was left as it is.
CREATE OR REPLACE FUNCTION quotas_charge_set(moment timestamptz, settlements json, asks json, renewals json)
RETURNS TABLE (place int, outcome text, nanos bigint, free_nanos bigint, spent_nanos bigint, limit_nanos bigint, models text)
LANGUAGE plpgsql
-- A set is small and every look-up has its index: by statistics of a moment when a table was small, a plan would read
-- through all of it, and through all dead holds. For the same reason a look-up is a subquery with a LIMIT, which is not
-- made a join, and a hold is found by its id alone (no index serves IS NOT DISTINCT FROM) and its space then checked.
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
    refusal text;
    -- What is granted, one place for each hold.
    requests uuid[] := '{}';
    spaces bigint[] := '{}';
    wallets uuid[] := '{}';
    users bigint[] := '{}';
    key_ids uuid[] := '{}';
    key_names text[] := '{}';
    model_names text[] := '{}';
    amounts bigint[] := '{}';
    lifetimes int[] := '{}';
    refused uuid[] := '{}';
BEGIN
    PERFORM FROM quotas_wallet w
    WHERE w.id IN (
        SELECT h.wallet_id
        FROM json_to_recordset(settlements) AS s(space bigint, request uuid)
        CROSS JOIN LATERAL (SELECT * FROM quotas_hold h WHERE h.id = s.request LIMIT 1) h
        WHERE h.space_id = s.space
        UNION ALL
        SELECT own.id
        FROM json_to_recordset(asks) AS a(space bigint, hash text)
        CROSS JOIN LATERAL (
            SELECT k.space_id, k.user_id FROM accounts_apikey k
            WHERE k.space_id = a.space AND k.deleted_at IS NULL
                AND (k.hash = a.hash OR (k.old_hash <> '' AND k.old_hash = a.hash AND k.old_until > moment))
            LIMIT 1
        ) k
        JOIN accounts_user u ON u.id = k.user_id
        CROSS JOIN LATERAL (
            SELECT w.id FROM quotas_wallet w
            WHERE w.space_id = k.space_id
                AND ((u.role <> 'manager' AND w.user_id = u.id) OR (u.role = 'manager' AND w.kind = 'pool'))
            LIMIT 1
        ) own
    )
    ORDER BY w.space_id, w.id
    FOR NO KEY UPDATE;

    IF json_array_length(settlements) > 0 THEN
        RETURN QUERY
        WITH ended AS MATERIALIZED (
            SELECT
                s.*, h.wallet_id, h.user_id, h.key_id, h.key_name, h.model, h.amount, u.username,
                CASE WHEN s.cost > 0 OR s.status < 400 THEN 'consume' ELSE 'error' END AS kind,
                w.total - w.allocated - w.spent - w.held
                    + sum(h.amount - s.cost) OVER (PARTITION BY h.wallet_id ORDER BY s.place)::bigint AS free
            FROM json_to_recordset(settlements) AS s(
                place int, record uuid, space bigint, request uuid, cost bigint, input_tokens bigint,
                cached_tokens bigint, output_tokens bigint, images bigint, seconds bigint, price jsonb, duration_ms int,
                first_token_ms int, status smallint, code text, is_estimated boolean
            )
            CROSS JOIN LATERAL (SELECT * FROM quotas_hold h WHERE h.id = s.request LIMIT 1) h
            JOIN quotas_wallet w ON w.id = h.wallet_id AND w.space_id = h.space_id
            JOIN accounts_user u ON u.id = h.user_id
            WHERE h.space_id = s.space AND NOT w.is_closed AND s.cost <= h.amount
        ), logged AS (
            INSERT INTO usage_usagerecord (
                id, space_id, wallet_id, user_id, username, key_id, key_name, model, kind, request_id, input_tokens,
                cached_tokens, output_tokens, images, seconds, price, held, cost, shortfall, available_after,
                is_estimated, duration_ms, first_token_ms, status, code
            )
            SELECT
                record, space, wallet_id, user_id, username, key_id, key_name, model, kind, request, input_tokens,
                cached_tokens, output_tokens, images, seconds, price, amount, cost, 0, free,
                is_estimated, duration_ms, first_token_ms, status, code
            FROM ended
        ), rolled_up AS (
            INSERT INTO usage_hourlyusage AS total (
                id, space_id, user_id, key_id, model, hour, requests, errors, input_tokens, output_tokens, cost
            )
            SELECT
                gen_random_uuid(), space, user_id, key_id, model, date_trunc('hour', moment, 'UTC'), count(*),
                count(*) FILTER (WHERE kind = 'error'), sum(input_tokens), sum(output_tokens), sum(cost)
            FROM ended
            GROUP BY space, user_id, key_id, model
            ON CONFLICT (space_id, user_id, key_id, model, hour) DO UPDATE SET
                requests = total.requests + excluded.requests,
                errors = total.errors + excluded.errors,
                input_tokens = total.input_tokens + excluded.input_tokens,
                output_tokens = total.output_tokens + excluded.output_tokens,
                cost = total.cost + excluded.cost
        ), freed AS (
            DELETE FROM quotas_hold h USING ended e WHERE h.id = e.request AND h.space_id IS NOT DISTINCT FROM e.space
        ), charged AS (
            UPDATE quotas_wallet w
            SET held = w.held - due.amount, spent = w.spent + due.cost
            FROM (SELECT space, wallet_id, sum(amount) AS amount, sum(cost) AS cost FROM ended GROUP BY 1, 2) due
            WHERE w.id = due.wallet_id AND w.space_id = due.space
        ), counted AS (
            UPDATE accounts_apikey k
            SET held = k.held - due.amount, spent = k.spent + due.cost, last_used_at = moment
            FROM (SELECT space, key_id, sum(amount) AS amount, sum(cost) AS cost FROM ended GROUP BY 1, 2) due
            WHERE k.id = due.key_id AND k.space_id = due.space
        )
        SELECT place, 'settled', cost, free, NULL::bigint, NULL::bigint, NULL::text FROM ended;
    END IF;

    IF json_array_length(renewals) > 0 THEN
        RETURN QUERY
        UPDATE quotas_hold h
        SET delivered_bytes = greatest(h.delivered_bytes, r.delivered_bytes),
            accrued = greatest(h.accrued, least(r.accrued, h.amount)),
            expires_at = moment + make_interval(secs => r.lifetime_s)
        FROM json_to_recordset(renewals) AS r(
            place int, space bigint, request uuid, delivered_bytes bigint, accrued bigint, lifetime_s int
        )
        WHERE h.id = r.request AND h.space_id IS NOT DISTINCT FROM r.space
        RETURNING r.place, 'renewed', h.amount, NULL::bigint, NULL::bigint, NULL::bigint, NULL::text;
    END IF;

    IF json_array_length(asks) = 0 THEN
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
                WHEN k.ips_allowed <> '[]' AND NOT coalesce((
                    SELECT bool_or(a.address <<= network::inet)
                    FROM jsonb_array_elements_text(k.ips_allowed) AS networks(network)
                ), false) THEN 'ip_not_allowed'
                WHEN a.model <> '' AND k.models_allowed <> '[]' AND NOT k.models_allowed ? a.model
                THEN 'model_not_allowed'
            END AS refusal
        FROM json_to_recordset(asks) AS a(
            place int, record uuid, request uuid, space bigint, hash text, address inet, model text, least bigint,
            most bigint, lifetime_s int, status smallint, code text
        )
        LEFT JOIN LATERAL (
            SELECT * FROM accounts_apikey k
            WHERE k.space_id = a.space AND k.deleted_at IS NULL
                AND (k.hash = a.hash OR (k.old_hash <> '' AND k.old_hash = a.hash AND k.old_until > moment))
            LIMIT 1
        ) k ON true
        LEFT JOIN accounts_user u ON u.id = k.user_id
        LEFT JOIN tenants_space s ON s.id = k.space_id
        LEFT JOIN LATERAL (
            SELECT * FROM quotas_wallet w
            WHERE w.space_id = k.space_id
                AND ((u.role <> 'manager' AND w.user_id = u.id) OR (u.role = 'manager' AND w.kind = 'pool'))
            LIMIT 1
        ) w ON true
        ORDER BY w.space_id, w.id, a.place
    LOOP
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
            granted := least(ask.most, greatest(ask.least, least(free, key_free)));
            refusal := CASE
                WHEN granted > free THEN 'insufficient_quota'
                WHEN granted > key_free THEN 'key_limit_reached'
            END;
        END IF;

        place := ask.place;
        outcome := coalesce(refusal, 'allowed');
        nanos := granted;
        models := ask.models_allowed::text;
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

        IF refusal IS NULL AND granted > 0 THEN
            free := free - granted;
            key_frees[at] := key_free - granted;
            requests := requests || ask.request;
            spaces := spaces || ask.space;
            wallets := wallets || ask.wallet_id;
            users := users || ask.user_id;
            key_ids := key_ids || ask.key_id;
            key_names := key_names || ask.key_name;
            model_names := model_names || ask.model;
            amounts := amounts || granted;
            lifetimes := lifetimes || ask.lifetime_s;
        ELSIF ask.wallet_id IS NOT NULL AND coalesce(refusal, ask.code) <> '' AND (ask.model <> '' OR ask.code <> '') THEN
            refused := refused || ask.record;
            INSERT INTO usage_usagerecord (
                id, space_id, wallet_id, user_id, username, key_id, key_name, model, kind, request_id, input_tokens,
                cached_tokens, output_tokens, images, seconds, price, held, cost, shortfall, available_after,
                is_estimated, duration_ms, status, code
            ) VALUES (
                ask.record, ask.space, ask.wallet_id, ask.user_id, ask.username, ask.key_id, ask.key_name, ask.model,
                'error', ask.request, 0, 0, 0, 0, 0, '{}', 0, 0, 0, free,
                false, 0,
                CASE
                    WHEN refusal IS NULL THEN ask.status
                    WHEN refusal IN ('insufficient_quota', 'key_limit_reached') THEN 429
                    WHEN refusal IN ('key_disabled', 'key_expired') THEN 401
                    ELSE 403
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
            requests, spaces, wallets, users, key_ids, key_names, model_names, amounts, lifetimes
        ) AS made(request, space, wallet_id, user_id, key_id, key_name, model, amount, lifetime_s);

        UPDATE quotas_wallet w
        SET held = w.held + due.amount
        FROM (
            SELECT space, wallet_id, sum(amount) AS amount
            FROM unnest(spaces, wallets, amounts) AS made(space, wallet_id, amount)
            GROUP BY 1, 2
        ) due
        WHERE w.id = due.wallet_id AND w.space_id = due.space;

        UPDATE accounts_apikey k
        SET held = k.held + due.amount, last_used_at = moment
        FROM (
            SELECT space, key_id, sum(amount) AS amount
            FROM unnest(spaces, key_ids, amounts) AS made(space, key_id, amount)
            GROUP BY 1, 2
        ) due
        WHERE k.id = due.key_id AND k.space_id = due.space;
    END IF;

    IF refused <> '{}' THEN
        INSERT INTO usage_hourlyusage AS total (
            id, space_id, user_id, key_id, model, hour, requests, errors, input_tokens, output_tokens, cost
        )
        SELECT
            gen_random_uuid(), space_id, user_id, key_id, model, date_trunc('hour', moment, 'UTC'), count(*), count(*),
            0, 0, 0
        FROM usage_usagerecord
        WHERE id = ANY (refused)
        GROUP BY space_id, user_id, key_id, model
        ON CONFLICT (space_id, user_id, key_id, model, hour) DO UPDATE SET
            requests = total.requests + excluded.requests,
            errors = total.errors + excluded.errors;
    END IF;
END $$;

-- The baseline that pgbench calls: one function for a hold and one for a settlement, each with plain statements and
-- cached plans, in one round trip. They write the same rows as the product does.

CREATE TABLE bench_key (number int PRIMARY KEY, space_id bigint NOT NULL, hash text NOT NULL);

CREATE FUNCTION bench_hold(bearer int, amount_nanos bigint) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    key record;
    free bigint;
    made uuid := gen_random_uuid();
BEGIN
    SELECT k.id, k.name, k.space_id, k.user_id, w.id AS wallet_id INTO STRICT key
    FROM bench_key b
    JOIN accounts_apikey k ON k.space_id = b.space_id AND k.hash = b.hash
    JOIN accounts_user u ON u.id = k.user_id
    JOIN tenants_space s ON s.id = k.space_id
    JOIN quotas_wallet w ON w.space_id = k.space_id AND w.user_id = k.user_id
    WHERE b.number = bearer AND k.deleted_at IS NULL AND k.is_enabled AND (k.expires_at IS NULL OR k.expires_at > now())
        AND u.is_active AND s.suspended_at IS NULL;

    SELECT total - allocated - spent - held INTO STRICT free
    FROM quotas_wallet WHERE id = key.wallet_id AND space_id = key.space_id FOR NO KEY UPDATE;
    IF free < amount_nanos THEN
        RAISE 'insufficient_quota';
    END IF;

    UPDATE quotas_wallet SET held = held + amount_nanos WHERE id = key.wallet_id AND space_id = key.space_id;
    UPDATE accounts_apikey SET held = held + amount_nanos, last_used_at = now()
    WHERE id = key.id AND space_id = key.space_id;
    INSERT INTO quotas_hold (
        id, space_id, wallet_id, user_id, key_id, key_name, model, amount, accrued, delivered_bytes, created_at,
        expires_at
    ) VALUES (
        made, key.space_id, key.wallet_id, key.user_id, key.id, key.name, 'bench', amount_nanos, 0, 0, now(),
        now() + interval '60 seconds'
    );
    RETURN made;
END $$;

CREATE FUNCTION bench_settle(held_for uuid, cost_nanos bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    hold record;
    free bigint;
BEGIN
    SELECT h.*, u.username INTO STRICT hold
    FROM quotas_hold h JOIN accounts_user u ON u.id = h.user_id WHERE h.id = held_for;

    UPDATE quotas_wallet SET held = held - hold.amount, spent = spent + cost_nanos
    WHERE id = hold.wallet_id AND space_id = hold.space_id
    RETURNING total - allocated - spent - held INTO STRICT free;
    UPDATE accounts_apikey SET held = held - hold.amount, spent = spent + cost_nanos, last_used_at = now()
    WHERE id = hold.key_id AND space_id = hold.space_id;
    DELETE FROM quotas_hold WHERE id = held_for;
    INSERT INTO usage_usagerecord (
        id, space_id, wallet_id, user_id, username, key_id, key_name, model, kind, request_id, input_tokens,
        cached_tokens, output_tokens, images, seconds, price, held, cost, shortfall, available_after, is_estimated,
        duration_ms, status, code
    ) VALUES (
        bench_id(clock_timestamp()), hold.space_id, hold.wallet_id, hold.user_id, hold.username, hold.key_id,
        hold.key_name, 'bench', 'consume', held_for, 24, 0, 20, 0, 0,
        '{"input": 2500000000, "output": 10000000000}', hold.amount,
        cost_nanos, 0, free, false, 100, 200, ''
    );
    INSERT INTO usage_hourlyusage AS total (
        id, space_id, user_id, key_id, model, hour, requests, errors, input_tokens, output_tokens,
        error_input_tokens, error_output_tokens, cost
    ) VALUES (
        gen_random_uuid(), hold.space_id, hold.user_id, hold.key_id, 'bench', date_trunc('hour', now(), 'UTC'), 1, 0,
        24, 20, 0, 0, cost_nanos
    )
    ON CONFLICT (space_id, user_id, key_id, model, hour) DO UPDATE SET
        requests = total.requests + 1, input_tokens = total.input_tokens + 24, output_tokens = total.output_tokens + 20,
        cost = total.cost + excluded.cost;
    RETURN free;
END $$;

-- A UUIDv7 of that time, like the log's ids.
CREATE FUNCTION bench_id(moment timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT (
        lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7' || substr(random, 1, 3) || '8'
        || substr(random, 4, 15)
    )::uuid
    FROM replace(gen_random_uuid()::text, '-', '') AS random
$$;

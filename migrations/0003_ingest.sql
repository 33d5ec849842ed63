-- Where each worker instance is to resume: every record below next_seq is committed or among the rejects.
CREATE TABLE ingest_cursors (
    epoch        uuid        NOT NULL,
    service_id   uuid        NOT NULL,
    workspace_id uuid        NOT NULL,
    next_seq     bigint      NOT NULL DEFAULT 0,
    opened_at    timestamptz NOT NULL DEFAULT now(),
    -- When the instance was found to be gone and its open rows were closed.
    closed_at    timestamptz,
    CONSTRAINT ingest_cursors_pk PRIMARY KEY (epoch)
) WITH (fillfactor = 50);

-- The last position given out. Its row lock makes position order the order of commits.
CREATE TABLE ingest_state (
    only_row boolean NOT NULL DEFAULT true,
    position bigint  NOT NULL DEFAULT 0,
    CONSTRAINT ingest_state_pk PRIMARY KEY (only_row),
    CONSTRAINT ingest_state_only_row CHECK (only_row)
) WITH (fillfactor = 10);

INSERT INTO ingest_state DEFAULT VALUES;

-- Records that Postgres or the decoder refused, as they came.
CREATE TABLE ingest_rejects (
    id           bigint      GENERATED ALWAYS AS IDENTITY,
    epoch        uuid        NOT NULL,
    seq          bigint      NOT NULL,
    service_id   uuid        NOT NULL,
    workspace_id uuid        NOT NULL,
    rejected_at  timestamptz NOT NULL DEFAULT now(),
    reason       text        NOT NULL,
    payload      bytea       NOT NULL,
    CONSTRAINT ingest_rejects_pk PRIMARY KEY (id)
);

-- Records that a worker had to drop, exactly counted.
CREATE TABLE ingest_gaps (
    epoch      uuid        NOT NULL,
    first_seq  bigint      NOT NULL,
    service_id uuid        NOT NULL,
    records    bigint      NOT NULL,
    exchanges  bigint      NOT NULL,
    from_at    timestamptz NOT NULL,
    to_at      timestamptz NOT NULL,
    CONSTRAINT ingest_gaps_pk PRIMARY KEY (epoch, first_seq)
);

-- Exchanges whose row was written while they were open. Small; what a dead instance leaves here is closed.
CREATE TABLE open_exchanges (
    exchange_id uuid NOT NULL,
    epoch       uuid NOT NULL,
    CONSTRAINT open_exchanges_pk PRIMARY KEY (exchange_id)
);

CREATE INDEX open_exchanges_by_epoch ON open_exchanges (epoch);

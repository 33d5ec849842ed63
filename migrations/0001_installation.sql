-- The installation: one row, made here. Its lease says which control plane may write.
CREATE TABLE installation (
    only_row         boolean     NOT NULL DEFAULT true,
    id               uuid        NOT NULL DEFAULT gen_random_uuid(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    -- The data directory that holds the lease; its lock proves that a former process of the same directory is gone.
    lease_instance   uuid,
    -- One run of the control plane; every ingest transaction checks it.
    lease_boot       uuid,
    -- For people: host, process and data directory.
    lease_holder     text,
    lease_expires_at timestamptz,
    CONSTRAINT installation_pk PRIMARY KEY (only_row),
    CONSTRAINT installation_only_row CHECK (only_row)
);

INSERT INTO installation DEFAULT VALUES;

CREATE TABLE workspaces (
    id          uuid        NOT NULL,
    code        text        NOT NULL,
    title       text        NOT NULL,
    description text        NOT NULL,
    revision    bigint      NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT workspaces_pk PRIMARY KEY (id),
    CONSTRAINT workspaces_code_key UNIQUE (code)
);

CREATE TABLE services (
    id                uuid        NOT NULL,
    workspace_id      uuid        NOT NULL,
    name              text        NOT NULL,
    kind              text        NOT NULL DEFAULT 'capture',
    is_verbose        boolean     NOT NULL,
    log_out_of_scope  boolean     NOT NULL,
    -- Desired state: is it to run?
    enabled           boolean     NOT NULL,
    insecure_upstream boolean     NOT NULL,
    extra_ca_pem      text        NOT NULL,
    passthrough_hosts text[]      NOT NULL,
    capture_limit     bigint      NOT NULL,
    revision          bigint      NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT services_pk PRIMARY KEY (id),
    CONSTRAINT services_workspace_fk FOREIGN KEY (workspace_id) REFERENCES workspaces (id),
    CONSTRAINT services_name_key UNIQUE (workspace_id, name),
    CONSTRAINT services_kind CHECK (kind IN ('capture')),
    CONSTRAINT services_capture_limit CHECK (capture_limit >= 0)
);

CREATE INDEX services_by_name ON services (name, id);

-- A table of its own, so that one constraint keeps ports apart whatever kind of service listens.
CREATE TABLE listeners (
    service_id uuid    NOT NULL,
    host       text    NOT NULL,
    port       integer NOT NULL,
    CONSTRAINT listeners_pk PRIMARY KEY (service_id, port),
    CONSTRAINT listeners_service_fk FOREIGN KEY (service_id) REFERENCES services (id) ON DELETE CASCADE,
    CONSTRAINT listeners_port_key UNIQUE (port),
    CONSTRAINT listeners_port_range CHECK (port BETWEEN 1 AND 65535)
);

-- Beside `services`, because ingest updates it in every transaction.
CREATE TABLE service_counters (
    service_id uuid   NOT NULL,
    -- Exchanges committed since creation.
    stored     bigint NOT NULL DEFAULT 0,
    CONSTRAINT service_counters_pk PRIMARY KEY (service_id),
    CONSTRAINT service_counters_service_fk FOREIGN KEY (service_id) REFERENCES services (id) ON DELETE CASCADE
) WITH (fillfactor = 50);

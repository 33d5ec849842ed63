-- What happened to the installation and its proxies. No foreign keys: an event outlives what it is about.
CREATE TABLE events (
    -- UUIDv7, made in the order in which events are told.
    id           uuid        NOT NULL,
    -- When it happened; of several equal ones, the last.
    at           timestamptz NOT NULL,
    -- Numbers of the API: EventSeverity and EventSubjectType.
    severity     smallint    NOT NULL,
    subject_type smallint    NOT NULL,
    subject_id   uuid,
    -- As it was then: workspace/name of a proxy.
    subject_name text        NOT NULL,
    workspace_id uuid,
    -- Part of the control plane that raised it.
    source       text        NOT NULL,
    -- Stable code.
    kind         text        NOT NULL,
    message      text        NOT NULL,
    -- Text by name.
    details      jsonb       NOT NULL,
    -- Equal events that this one stands for.
    occurrences  integer     NOT NULL,
    CONSTRAINT events_pk PRIMARY KEY (id),
    CONSTRAINT events_severity CHECK (severity BETWEEN 1 AND 3),
    CONSTRAINT events_occurrences CHECK (occurrences > 0)
);

CREATE INDEX events_by_subject ON events (subject_id, id);
CREATE INDEX events_by_workspace ON events (workspace_id, id);

-- Every configuration that a service has had, the last 100 of each; removed with the service.
CREATE TABLE service_revisions (
    service_id    uuid        NOT NULL,
    revision      bigint      NOT NULL,
    made_at       timestamptz NOT NULL,
    cause         text        NOT NULL,
    -- The revision that a rollback brought back.
    from_revision bigint,
    -- Paths as in an update mask; none of a service's first one, nor of one that was kept when this table was made.
    changed       text[]      NOT NULL,
    -- The configuration, whole: a value by path.
    configuration jsonb       NOT NULL,
    CONSTRAINT service_revisions_pk PRIMARY KEY (service_id, revision),
    CONSTRAINT service_revisions_service_fk FOREIGN KEY (service_id) REFERENCES services (id) ON DELETE CASCADE,
    CONSTRAINT service_revisions_cause CHECK (cause IN ('create', 'update', 'rollback')),
    CONSTRAINT service_revisions_from CHECK ((cause = 'rollback') = (from_revision IS NOT NULL))
);

-- What there is begins with its present state.
INSERT INTO service_revisions (service_id, revision, made_at, cause, changed, configuration)
SELECT s.id, s.revision, s.updated_at, CASE WHEN s.revision = 1 THEN 'create' ELSE 'update' END, '{}',
       jsonb_build_object(
           'name', s.name, 'host', l.host, 'port', l.port, 'verbose', s.is_verbose,
           'log_out_of_scope', s.log_out_of_scope, 'capture.insecure_upstream', s.insecure_upstream,
           'capture.extra_ca_pem', s.extra_ca_pem, 'capture.passthrough_hosts', s.passthrough_hosts,
           'capture.capture_limit', s.capture_limit)
FROM services s JOIN listeners l ON l.service_id = s.id;

-- Traffic. Partitioned by day on the UUIDv7 of the exchange; partitions are made by the control plane (LIKE + ATTACH).
-- No default partition: it forbids DETACH CONCURRENTLY. No foreign keys: traffic outlives its service.
-- Text is an escaped display form; exact bytes are in `heads`. NULL means absent or empty.
CREATE TABLE exchanges (
    -- First, and after it the position: ingest encodes rows before it knows their positions and fills them in.
    id                        uuid        NOT NULL,
    position                  bigint      NOT NULL,
    workspace_id              uuid        NOT NULL,
    service_id                uuid,
    started_at                timestamptz NOT NULL,
    duration_us               bigint      NOT NULL,
    request_size              bigint      NOT NULL,
    response_size             bigint      NOT NULL,
    request_captured          bigint      NOT NULL,
    response_captured         bigint      NOT NULL,
    port                      integer     NOT NULL,
    flags                     integer     NOT NULL,
    kind                      smallint    NOT NULL,
    state                     smallint    NOT NULL,
    -- NULL without an answer.
    status                    smallint,
    -- 10, 11 or 20; NULL when unknown.
    request_version           smallint,
    response_version          smallint,
    request_truncated         boolean     NOT NULL,
    response_truncated        boolean     NOT NULL,
    client                    text        NOT NULL,
    method                    text        NOT NULL,
    scheme                    text        NOT NULL,
    host                      text        NOT NULL,
    path                      text        NOT NULL,
    -- NULL when the target had no `?`.
    query                     text,
    request_content_type      text,
    response_content_type     text,
    request_content_encoding  text,
    response_content_encoding text,
    error                     text,
    error_detail              text,
    CONSTRAINT exchanges_pk PRIMARY KEY (id)
) PARTITION BY RANGE (id);

CREATE INDEX exchanges_by_service ON exchanges (service_id, id);
CREATE INDEX exchanges_by_position ON exchanges USING brin (position) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE heads (
    exchange_id         uuid  NOT NULL,
    request_head        bytea,
    response_head       bytea,
    informational_heads bytea,
    request_trailers    bytea,
    response_trailers   bytea,
    dns_us              bigint,
    connect_us          bigint,
    tls_us              bigint,
    first_byte_us       bigint,
    origin_address      text,
    client_tls_version  text,
    client_tls_cipher   text,
    client_tls_alpn     text,
    client_tls_sni      text,
    origin_tls_version  text,
    origin_tls_cipher   text,
    origin_tls_alpn     text,
    origin_tls_sni      text,
    CONSTRAINT heads_pk PRIMARY KEY (exchange_id)
) PARTITION BY RANGE (exchange_id);

CREATE TABLE body_chunks (
    exchange_id uuid     NOT NULL,
    chunk_start bigint   NOT NULL,
    -- 1 request, 2 response.
    side        smallint NOT NULL,
    data        bytea    NOT NULL,
    CONSTRAINT body_chunks_pk PRIMARY KEY (exchange_id, side, chunk_start)
) PARTITION BY RANGE (exchange_id);

CREATE TABLE websocket_connections (
    exchange_id          uuid        NOT NULL,
    workspace_id         uuid        NOT NULL,
    service_id           uuid,
    opened_at            timestamptz NOT NULL,
    -- NULL while open.
    closed_at            timestamptz,
    messages_from_client bigint      NOT NULL,
    messages_from_server bigint      NOT NULL,
    bytes_from_client    bigint      NOT NULL,
    bytes_from_server    bigint      NOT NULL,
    -- NULL when no Close frame was seen.
    close_code           integer,
    close_reason         text,
    subprotocol          text,
    extensions           text,
    CONSTRAINT websocket_connections_pk PRIMARY KEY (exchange_id)
) PARTITION BY RANGE (exchange_id);

CREATE INDEX websocket_connections_by_service ON websocket_connections (service_id, exchange_id);

-- A row per part; parts of a message share its sequence.
CREATE TABLE websocket_messages (
    exchange_id uuid        NOT NULL,
    sequence    bigint      NOT NULL,
    part        integer     NOT NULL,
    at          timestamptz NOT NULL,
    -- Of the whole message; 0 but in the last part.
    size        bigint      NOT NULL,
    -- 1 client to server, 2 server to client.
    side        smallint    NOT NULL,
    opcode      smallint    NOT NULL,
    truncated   boolean     NOT NULL,
    compressed  boolean     NOT NULL,
    last        boolean     NOT NULL,
    payload     bytea       NOT NULL,
    CONSTRAINT websocket_messages_pk PRIMARY KEY (exchange_id, sequence, part)
) PARTITION BY RANGE (exchange_id);

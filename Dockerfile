# syntax=docker/dockerfile:1
FROM rust:1.95-trixie AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --features otel && cp target/release/outboxd /usr/local/bin/

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3t64 zlib1g \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/outboxd /usr/local/bin/
USER nobody
EXPOSE 9640
ENTRYPOINT ["outboxd"]
CMD ["run"]

# syntax=docker/dockerfile:1
# The daemon and what it links, and nothing else: no shell, no package manager, nothing that is written to.
FROM rust:1.95-trixie AS build
WORKDIR /src
COPY . .
# A profile of the daemon at work, in the context, by which it is compiled: `make profile` makes outboxd.profdata.
ARG PROFILE
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    RUSTFLAGS="${PROFILE:+-Cprofile-use=/src/$PROFILE}" cargo build --release --locked --features otel --bin outboxd \
    && strip --strip-debug -o /usr/local/bin/outboxd target/release/outboxd \
    && scripts/image-root /usr/local/bin/outboxd /image

FROM scratch
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="outboxd" \
      org.opencontainers.image.description="Transactional outbox relay: MySQL's binlog to Kafka, in order" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
# Where Debian's OpenSSL is not told otherwise, it looks in a folder that the image does not have.
ENV PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# By number, so that a supervisor can see that it is not root.
USER 65532:65532
EXPOSE 9640
# Ready, not only alive: docker tells of it, and restarts nothing for it.
HEALTHCHECK --interval=10s --timeout=6s --start-period=1m --retries=3 CMD ["outboxd", "health"]
ENTRYPOINT ["outboxd"]
CMD ["run"]

# syntax=docker/dockerfile:1
# An image with the binary and nothing that a shell could be: docker build -t ssegate .
#
#   docker run -p 8443:8443 -v ./ssegate:/etc/ssegate:ro ssegate     # with config.yaml in ./ssegate
#
# hadolint 2.15.1 finds nothing in this file; tests hold it to what it copies and runs.
# The configuration has `server.listen: "0.0.0.0:8443"`; the admin listener, on loopback by default, is the container's own.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Both caches are of the builder's; the binary is taken out of one, without what only debuggers read.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release && objcopy --strip-debug target/release/ssegate /ssegate

# glibc, libgcc, and the authorities of Mozilla's list.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /ssegate /usr/bin/ssegate
# `nonroot` by number, for those who check that it is not root.
USER 65532:65532
EXPOSE 8443 9090
# It drains for `server.drain`, 20 s unless configured: docker stop --time 30.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=12s --start-period=15s --start-interval=1s \
    CMD ["/usr/bin/ssegate", "status", "--ready", "--config", "/etc/ssegate/config.yaml"]
ENTRYPOINT ["/usr/bin/ssegate"]
CMD ["serve", "--config", "/etc/ssegate/config.yaml"]

# One static-enough binary on a small Debian, run by nobody in particular.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && cargo build --release --locked -p tidelog-server

FROM debian:bookworm-slim
RUN groupadd --gid 65532 tidelog \
    && useradd --uid 65532 --gid tidelog --no-create-home --shell /usr/sbin/nologin tidelog \
    && install --directory --owner=tidelog --group=tidelog /var/lib/tidelog
COPY --from=build /src/target/release/tidelog /usr/local/bin/tidelog
USER tidelog
VOLUME /var/lib/tidelog
# Clients, and the admin pages for other containers of the same network.
EXPOSE 9092 9644
STOPSIGNAL SIGTERM
# The image has no curl: bash opens the socket and asks for /readyz itself.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/9644 && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["tidelog"]
# Clients on the host reach a published port as localhost; set --advertise for anything else.
CMD ["serve", "--data-dir", "/var/lib/tidelog", "--listen", "0.0.0.0:9092", \
     "--advertise", "localhost:9092", "--admin", "0.0.0.0:9644"]

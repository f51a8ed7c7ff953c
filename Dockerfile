# The programs on a CPU: docker build -t wegeft . && docker run --rm -v "$PWD/runs:/work/runs" wegeft vtab
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --release -p experiments --bin wegeft

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/release/wegeft /usr/local/bin/wegeft
WORKDIR /work
ENTRYPOINT ["wegeft"]

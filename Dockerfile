# syntax=docker/dockerfile:1

# A release pins both bases by digest: --build-arg RUNTIME=gcr.io/…@sha256:…
ARG GOLANG=docker.io/library/golang:1.26
ARG RUNTIME=gcr.io/distroless/static-debian12:nonroot

FROM ${GOLANG} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
# TARGETOS and TARGETARCH are the builder's own platform unless docker is told
# --platform. The version in the binary is the commit's (see .dockerignore).
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} \
    go build -trimpath -ldflags "-s -w" -o /out/workerd ./cmd/workerd

FROM ${RUNTIME}
ARG VERSION=dev REVISION=unknown
LABEL org.opencontainers.image.title="workerd" \
      org.opencontainers.image.description="Pulls jobs from NATS JetStream and calls a downstream service for each; loses none, hammers none, starves none." \
      org.opencontainers.image.source="https://github.com/workerd/workerd" \
      org.opencontainers.image.documentation="https://github.com/workerd/workerd#readme" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/workerd /usr/local/bin/workerd
USER 65532:65532
# Status page, health, metrics. The default listens on 127.0.0.1 only; set
# admin.listen to reach it from outside the container.
EXPOSE 8422
# SIGTERM drains; give it longer than drain.timeout (docker stop -t 30).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["/usr/local/bin/workerd", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/workerd"]
CMD ["run", "/etc/workerd/workerd.yaml"]

// Built by `python -m tests.bench.persist --only go,...` alone; no part of the package.
module rmos/bench/go_peer

go 1.26.0

// Pinned, so that a figure is about one client. franz-go is plain Go: it builds without a C compiler.
require github.com/twmb/franz-go v1.22.3

require (
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
	github.com/twmb/franz-go/pkg/kmsg v1.15.1 // indirect
)

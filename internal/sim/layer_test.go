package sim

// layer is against what the core runs.
type layer string

// The layers.
const (
	fakeLayer layer = "fake" // fast, and gets into trouble the real one cannot be brought into
	realLayer layer = "real" // a nats-server
)

func layers() []layer { return []layer{fakeLayer, realLayer} }

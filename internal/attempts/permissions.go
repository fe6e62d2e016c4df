package attempts

import "github.com/workerd/workerd/internal/queue"

// Permissions are what it takes to count the attempts of these consumers' jobs.
func Permissions(nats queue.Config, cfg Config, consumers []queue.SourceConfig) []queue.Permission {
	stream := "KV_" + cfg.Bucket
	all := []queue.Permission{
		{Verb: queue.Publish, Subject: nats.API("STREAM.INFO." + stream), For: "find the bucket of attempts, " + cfg.Bucket},
		nats.CreatePermission("STREAM.CREATE."+stream, `{"name":"-"}`, "the bucket of attempts, "+cfg.Bucket+","),
	}
	account := nats.CreatePermission("INFO", "", "the bucket of attempts, "+cfg.Bucket+",")
	all = append(all, account) // the client asks what the server can do
	for _, c := range consumers {
		keys := prefix(c.Stream, c.Consumer)
		// Behind a domain the client writes through the API's prefix.
		write := "$KV." + cfg.Bucket + "." + keys
		if nats.JetstreamDomain != "" {
			write = nats.API(write)
		}
		read := nats.API("DIRECT.GET." + stream + ".$KV." + cfg.Bucket + "." + keys)
		all = append(all,
			queue.Permission{Verb: queue.Publish, Subject: write + "*", Probe: write + "0", For: "count the attempts of consumer " + c.Consumer},
			queue.Permission{Verb: queue.Publish, Subject: read + "*", Probe: read + "0", For: "read the attempts of consumer " + c.Consumer},
		)
	}
	return all
}

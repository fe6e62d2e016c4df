package dlq

import "github.com/workerd/workerd/internal/queue"

// Permissions are what it takes to keep the dead letters of these pools.
func Permissions(nats queue.Config, cfg Config, pools []string) []queue.Permission {
	all := nats.StreamPermissions(cfg.Stream)
	for _, pool := range pools {
		all = append(all, queue.Permission{
			Verb: queue.Publish, Subject: cfg.Subject + "." + pool, For: "store the dead letters of pool " + pool, Overheard: true,
		})
	}
	return all
}

// ShelfPermission is what it takes to park the jobs of a target.
func ShelfPermission(target, subject string) queue.Permission {
	return queue.PublishPermission(subject, "park jobs of target "+target, queue.Required)
}

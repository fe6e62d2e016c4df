package result

import (
	"github.com/workerd/workerd/internal/pool"
	"github.com/workerd/workerd/internal/queue"
)

// Permissions are what it takes to tell how the jobs of a pool ended. What must
// be on record is needed for work to go on.
func Permissions(name string, cfg pool.Results) []queue.Permission {
	need := queue.Useful
	if cfg.Stream != "" {
		need = queue.Required
	}
	all := make([]queue.Permission, 0, len(cfg.Subjects))
	for _, filter := range cfg.Subjects {
		all = append(all, queue.PublishPermission(filter, "tell how the jobs of pool "+name+" ended", need))
	}
	return all
}

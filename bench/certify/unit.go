package certify

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// install is what a unit is to do.
type install struct {
	Root   string        `json:"root"`
	Unit   string        `json:"unit"`
	Source string        `json:"source"`
	Lease  time.Duration `json:"lease_ns,omitempty"` // 0 is the coordinator's own
}

// installed is the release as a unit got it.
type installed struct {
	Dir        string `json:"dir"`
	Contents   string `json:"contents"` // a digest
	Downloaded bool   `json:"downloaded"`
}

// install does what a unit does that needs a release. It tells when it has begun.
func (d *deeds) install(ctx context.Context, i install) (reply, error) {
	var mu sync.Mutex
	told := false
	c, err := coordinator.Open(ctx, i.Root, coordinator.Options{
		Unit: i.Unit, Product: madeUp(), Source: i.Source, Lease: i.Lease,
		Progress: func(p coordinator.Progress) {
			mu.Lock()
			defer mu.Unlock()
			if !told && p.State != coordinator.Installed {
				told = true
				_ = d.tell.Encode(reply{Began: true, State: string(p.State)}) // who has gone asks for no more
			}
		},
	})
	if err != nil {
		return reply{}, err
	}
	r, err := c.Use(ctx, version)
	mu.Lock()
	defer mu.Unlock()
	told = true
	if err != nil {
		return reply{}, err
	}
	return reply{Release: &installed{Dir: r.Dir, Contents: r.Contents, Downloaded: r.Downloaded}}, nil
}

// sound reads every byte of the release.
func sound(ctx context.Context, i install) (bool, error) {
	v, err := coordinator.Look(ctx, i.Root, madeUp())
	if err != nil {
		return false, err
	}
	err = v.Verify(ctx, version, func(done, total int64) {})
	if errors.Is(err, coordinator.ErrCorrupt) {
		return false, nil
	}
	return err == nil, err
}

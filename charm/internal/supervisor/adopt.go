package supervisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// formerUnit is the systemd unit of the watcher, which ran beside hooks that did the work
// themselves, up to the charm's layout 1 of the state directory.
const formerUnit = "concourse-ci-watcher.service"

// notes are what hooks of that layout remembered.
type notes struct {
	VolumeID string            `json:"volume_id"`
	Running  string            `json:"running"`
	Applied  map[string]string `json:"applied"` // digests of the services as they were started
	TSAHost  string            `json:"tsa_host"`
}

// adopt takes over services that such a charm has started, so that a refresh disturbs
// none of them: those that are as the spec wants them.
func (s *Supervisor) adopt(spec Spec) Memory {
	m, n := s.memory.clone(), s.former()
	if n.Running == "" {
		return m
	}
	m.VolumeID, m.Running, m.TSAHost, m.Started = n.VolumeID, n.Running, n.TSAHost, map[string]Started{}
	take := func(service concourse.Service, reload, is string) {
		if n.Applied[service.Unit] == formerDigest(service) {
			m.Started[service.Unit] = Started{Restart: service.RestartDigest(), Reload: reload, Is: is, Version: n.Running}
		}
	}
	if spec.Web != nil {
		// It is reloaded once: which workers it knows was not remembered.
		take(spec.Web.Service(s.Paths, n.Running), "", spec.Web.Identity())
	}
	if spec.Worker != nil {
		worker := *spec.Worker
		worker.WorkDir = filepath.Join(spec.Root, "worker", concourse.WorkerName(spec.Unit))
		service := worker.Service(s.Paths, n.Running)
		take(service, service.ReloadDigest(), worker.Identity())
	}
	return m
}

// former returns the notes of such a charm, if its services were not taken over yet.
func (s *Supervisor) former() (n notes) {
	if s.memory.Running == "" {
		_ = s.files.read("notes.json", &n)
	}
	return n
}

// forgetFormer removes what such a charm has left, once it is taken over.
func (s *Supervisor) forgetFormer(ctx context.Context) {
	if s.status.Former {
		for unit := range s.memory.Started {
			if err := s.System.StartAtBoot(ctx, unit, false); err != nil {
				s.Log.Warn("a service still starts at boot", "error", err)
			}
		}
	}
	s.status.Former = false
	for _, name := range []string{"notes.json", "want.json", "found.json", "bin/watcher"} {
		_ = os.Remove(filepath.Join(s.Paths.State, name)) // most units never had it
	}
}

// formerDigest is that of a service as the former charm has started it.
func formerDigest(s concourse.Service) string {
	sum := sha256.Sum256([]byte("[Unit]\nDescription=" + s.Description +
		"\nAfter=network-online.target\nWants=network-online.target\nStartLimitIntervalSec=0\n\n[Service]\n" + s.Process +
		"\n[Install]\nWantedBy=multi-user.target\n\x00" + s.Files[0].Content))
	return hex.EncodeToString(sum[:])
}

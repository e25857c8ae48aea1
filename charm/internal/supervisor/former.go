package supervisor

import (
	"net"
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// formerUnit is the systemd unit of the watcher, which ran beside hooks that did the work
// themselves.
const formerUnit = "concourse-ci-watcher.service"

// formerWorker is a worker as the charm before this one has described it: it knew the TSA
// by its address. One that runs so goes on until something changes, so that a refresh of
// the charm loses no build.
func formerWorker(w concourse.Worker, tsa string) concourse.Worker {
	w.NameServers, w.Certificates = "", "" // which count from the next start on
	if tsa != "" {                         // else the spec is still the former charm's
		tsa = tsa[strings.LastIndexByte(tsa, ' ')+1:] // that of the web server that serves
		w.TSAHost = net.JoinHostPort(tsa, strconv.Itoa(concourse.TSAPort))
	}
	return w
}

// recognize returns the memory with a worker of the former charm as one of this one.
func (m Memory) recognize(spec Spec) Memory {
	started, ok := m.Started[concourse.WorkerUnit]
	if ok && spec.Worker != nil && started.Is == formerWorker(*spec.Worker, spec.TSA).Identity() {
		started.Is = spec.Worker.Identity()
		m.Started[concourse.WorkerUnit] = started
	}
	return m
}

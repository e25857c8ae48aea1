package judge

import (
	"maps"
	"slices"
	"strconv"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var receivedRules = []Rule{
	{Name: "bytes-once", Promise: "Only the unit that the mirror sent a release to receives it over the network.", Broken: receivedTwice},
}

// What a machine receives beside releases, in bytes. A new one fetches Juju's agent,
// the charm and what the system lacks; one that runs has builds.
const (
	newMachine = 80 << 20
	meanwhile  = 32 << 20
)

// receivedTwice compares what machines received with what the mirror sent them, so
// that a download from elsewhere, or from another unit, is seen. Half of an archive is
// left for what else comes over the network: an archive of less than about 100 MB can
// not be told from that.
func receivedTwice(r observation.Record) []string {
	var f findings
	addresses, known := unitAddresses(r)
	if !known {
		return nil
	}
	last := map[string]observation.Observation{} // by unit
	for _, o := range r.Observations {
		for unit, m := range machines(o) {
			before, seen := last[unit]
			last[unit] = o
			if m.Received == 0 || m.Started.IsZero() {
				continue
			}
			from := before.Machines[unit]
			room, since := int64(meanwhile), strconv.Quote(before.Phase)
			if !seen || !same(from.Started, m.Started) {
				from, before = observation.Machine{}, observation.Observation{}
				room, since = newMachine, "its start"
			}
			smallest := int64(0)
			for _, version := range slices.Sorted(maps.Keys(o.Downloads)) {
				t := o.Downloads[version]
				if size := t.Size; size > 0 && (smallest == 0 || size < smallest) {
					smallest = size
				}
				for _, client := range t.Clients {
					if addresses[client][unit] {
						room += t.Sent - before.SentBefore[version]
					}
				}
			}
			got := int64(m.Received) - int64(from.Received)
			if most := room + smallest/2; smallest > 0 && got > most {
				f.add(o, unit, "received %d bytes since %s, more than the %d that can be explained", got, since, most)
			}
		}
	}
	return f
}

// unitAddresses returns whose each address is or was, and tells whether that is known of
// all clients of the mirror.
func unitAddresses(r observation.Record) (units map[string]map[string]bool, known bool) {
	units = map[string]map[string]bool{}
	for _, o := range r.Observations {
		for u := range allUnits(o.Status) {
			if units[u.Address] == nil {
				units[u.Address] = map[string]bool{}
			}
			units[u.Address][u.Name] = true
		}
	}
	for _, o := range r.Observations {
		for _, t := range o.Downloads {
			for _, client := range t.Clients {
				if units[client] == nil {
					return nil, false
				}
			}
		}
	}
	return units, true
}

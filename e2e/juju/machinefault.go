package juju

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/canonical/lxd/shared/api"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

const (
	// bootPatience is how long a stopped machine may take to run again.
	bootPatience = 2 * time.Minute
	// addressPatience is how long a machine may take to get its address back.
	addressPatience = time.Minute
)

// fault is one of this machine. What is done needs the name of its container.
func (m *machine) fault(name string, inject, heal func(ctx context.Context, instance string) error) cluster.Fault {
	locate := func(what string, act func(context.Context, string) error) func(context.Context) error {
		if act == nil {
			return nil
		}
		return func(ctx context.Context) error {
			instance, err := m.cluster.instance(ctx, m.unit)
			if err == nil {
				err = act(ctx, instance)
			}
			if err != nil {
				return fmt.Errorf("cannot %s %q: %w", what, name, err)
			}
			return nil
		}
	}
	return cluster.Fault{Name: name, Units: []string{m.unit}, Inject: locate("inject", inject), Heal: locate("heal", heal)}
}

// sparingBuilds is a fault that excuses no lost build: the worker goes on.
func sparingBuilds(f cluster.Fault) cluster.Fault {
	f.Units = nil
	return f
}

// exec is for faults that are a command.
func (m *machine) exec(argv ...string) func(context.Context, string) error {
	return func(ctx context.Context, instance string) error {
		_, err := m.cluster.lxd.exec(ctx, instance, nil, argv...)
		return err
	}
}

// Kill kills the main process of a service. What becomes of its others and whether it is
// started again is systemd's affair.
func (m *machine) Kill(service string) cluster.Fault {
	f := m.fault(fmt.Sprintf("%s of %s killed", service, m.unit),
		m.exec("systemctl", "kill", "--kill-whom=main", "--signal=KILL", service), nil)
	if strings.Contains(service, "worker") {
		return f
	}
	return sparingBuilds(f)
}

// Stop stops the container by force. It is healed when the container runs commands
// again; services may still be starting then.
func (m *machine) Stop() cluster.Fault {
	c := m.cluster
	return m.fault(fmt.Sprintf("machine of %s stopped", m.unit),
		func(ctx context.Context, instance string) error {
			if c.lxd.is(ctx, instance, api.Stopped) {
				return nil
			}
			return c.lxd.change(ctx, instance, "stop")
		}, c.boot)
}

// boot starts a container and waits until it runs commands.
func (c *Cluster) boot(ctx context.Context, instance string) error {
	// LXD refuses to attach a volume to one container while another that has it starts.
	if err := c.devices.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer c.devices.Release(1)
	return cluster.Poll(ctx, "container "+instance+" to run", time.Second, bootPatience, func(ctx context.Context) (bool, error) {
		if !c.lxd.is(ctx, instance, api.Running) {
			if err := c.lxd.change(ctx, instance, "start"); err != nil {
				return false, err
			}
		}
		_, err := c.lxd.exec(ctx, instance, nil, "true")
		return err == nil, err
	})
}

// Freeze freezes all of the container.
func (m *machine) Freeze() cluster.Fault {
	c := m.cluster
	return m.fault(fmt.Sprintf("machine of %s frozen", m.unit),
		func(ctx context.Context, instance string) error {
			if c.lxd.is(ctx, instance, api.Frozen) {
				return nil
			}
			return c.lxd.change(ctx, instance, "freeze")
		},
		func(ctx context.Context, instance string) error {
			if !c.lxd.is(ctx, instance, api.Frozen) {
				return nil
			}
			return c.lxd.change(ctx, instance, "unfreeze")
		})
}

// CutOff sets the container's interfaces down, from inside: that takes no rights on the
// host, keeps the interface with its hardware address, and so gets the same lease again.
// Removing the device would give it another one. A boot heals it, too.
func (m *machine) CutOff() cluster.Fault {
	c := m.cluster
	var mu sync.Mutex
	before := map[string][]string{} // addresses by interface
	return m.fault(fmt.Sprintf("network of %s cut off", m.unit),
		func(ctx context.Context, instance string) error {
			state, err := c.lxd.state(ctx, instance)
			if err != nil {
				return err
			}
			addresses := interfaceAddresses(state)
			if len(addresses) == 0 {
				return errors.New("it has no network")
			}
			for name, its := range addresses {
				if err := m.exec("ip", "link", "set", "dev", name, "down")(ctx, instance); err != nil {
					return err
				}
				mu.Lock()
				// One that is injected twice is down, and has none.
				if len(its) > 0 {
					before[name] = its
				}
				mu.Unlock()
			}
			return nil
		},
		func(ctx context.Context, instance string) error {
			state, err := c.lxd.state(ctx, instance)
			if err != nil {
				return err
			}
			for name := range interfaceAddresses(state) {
				if err := m.exec("ip", "link", "set", "dev", name, "up")(ctx, instance); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			return c.awaitAddresses(ctx, instance, before)
		})
}

// BlockPort has the kernel find no way to the port: it takes no firewall, and reaches
// connections that are there already. A boot heals it, too.
func (m *machine) BlockPort(port int) cluster.Fault {
	rule := func(change string) []string {
		return []string{"ip", "rule", change, "ipproto", "tcp", "dport", strconv.Itoa(port), "type", "blackhole"}
	}
	return m.fault(fmt.Sprintf("port %d kept from the machine of %s", port, m.unit), m.exec(rule("add")...), m.exec(rule("del")...))
}

// awaitAddresses waits until an instance has the addresses that it had.
func (c *Cluster) awaitAddresses(ctx context.Context, instance string, want map[string][]string) error {
	return cluster.Poll(ctx, "the addresses of "+instance, 500*time.Millisecond, addressPatience, func(ctx context.Context) (bool, error) {
		state, err := c.lxd.state(ctx, instance)
		if err != nil {
			return false, err
		}
		if have := interfaceAddresses(state); !containsAddresses(have, want) {
			return false, fmt.Errorf("it has %v, not %v again", have, want)
		}
		return true, nil
	})
}

// interfaceAddresses are the interfaces of an instance that lead out of it, each with its
// global IPv4 addresses. Bridges that a container runtime makes inside have no end on
// the host.
func interfaceAddresses(state *api.InstanceState) map[string][]string {
	found := map[string][]string{}
	for name, network := range state.Network {
		if network.HostName == "" {
			continue
		}
		found[name] = nil
		for _, a := range network.Addresses {
			if a.Family == "inet" && a.Scope == "global" {
				found[name] = append(found[name], a.Address)
			}
		}
	}
	return found
}

// containsAddresses tells whether an instance has all the addresses that are wanted.
func containsAddresses(have, want map[string][]string) bool {
	for name, addresses := range want {
		for _, a := range addresses {
			if !slices.Contains(have[name], a) {
				return false
			}
		}
	}
	return true
}

// agentService finds the agent's service by its unit file: it is jujud-machine-N in Juju
// 3, and jujuagentd-machine-N in Juju 4.
const agentService = `number=$1
shift
name=$(systemctl list-unit-files --no-legend "juju*-machine-$number.service" | cut -d" " -f1 | head -n 1)
test -n "$name" || { echo "no service of Juju's agent of machine $number" >&2; exit 1; }
systemctl "$@" "$name"`

// StopAgent stops Juju's agent of the machine, which runs the unit's hooks as well.
func (m *machine) StopAgent() cluster.Fault {
	return sparingBuilds(m.fault(fmt.Sprintf("Juju's agent of %s stopped", m.unit), m.agent("stop"), m.agent("start")))
}

// FreezeAgent stops its process with a signal: it keeps its connections and what it knows.
func (m *machine) FreezeAgent() cluster.Fault {
	return sparingBuilds(m.fault(fmt.Sprintf("Juju's agent of %s frozen", m.unit),
		m.agent("kill", "--signal=STOP"), m.agent("kill", "--signal=CONT")))
}

// agent has systemctl do something with the service of Juju's agent.
func (m *machine) agent(do ...string) func(context.Context, string) error {
	return func(ctx context.Context, instance string) error {
		number, err := machineNumber(m.cluster.modelUUID, instance)
		if err != nil {
			return err
		}
		return m.exec(append([]string{"sh", "-c", agentService, "sh", number}, do...)...)(ctx, instance)
	}
}

// LockTable holds a lock in a session of its own, which a transient service runs. The server
// looks whether its client is still there: else a session that waits outlives it, with the lock.
func (m *machine) LockTable(database, table string) cluster.Fault {
	const service = "table-lock.service"
	lock := fmt.Sprintf("SET client_connection_check_interval = '1s'; BEGIN; LOCK TABLE %s IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(86400)", table)
	return sparingBuilds(m.fault(fmt.Sprintf("table %s on the machine of %s locked", table, m.unit),
		m.exec("systemd-run", "--unit="+service, "--uid=postgres", "--property=Restart=on-failure",
			"psql", "--no-psqlrc", "--dbname="+database, "--command="+lock),
		m.exec("systemctl", "stop", service)))
}

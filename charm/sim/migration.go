package sim

import (
	"strconv"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// migration is a process of concourse migrate: it takes the schema up or down, step by step. A
// step in which it ends is undone. Of two, one waits for the other.
type migration struct {
	*machine
	version string
	env     map[string]string
	to      int
	over    bool
}

func newMigration(m *machine, version, command string, env map[string]string) *migration {
	_, to, _ := strings.Cut(command, "--migrate-db-to-version=")
	schema, err := strconv.Atoi(to)
	if err != nil {
		panic(err)
	}
	return &migration{machine: m, version: version, env: env, to: schema}
}

// goOn takes the next step. One of some takes longer than a web server has to answer.
func (p *migration) goOn() {
	least, most := 500*time.Millisecond, 5*time.Second
	if p.chance(5) {
		least, most = 3*time.Minute, 4*time.Minute
	}
	switch {
	case p.over:
		return
	case p.unreachable():
		p.fail("it cannot connect to the database")
		return
	case p.ci.migrates != nil && p.ci.migrates != p:
		p.after(time.Second, p.goOn)
		return
	case p.ci.schema == p.to:
		p.end("the schema is " + strconv.Itoa(p.to))
		p.units[concourse.MigrationUnit].state.Exit = "exit status 0"
		return
	}
	p.ci.migrates = p
	p.soon(least, most, func() {
		switch {
		case p.over:
			return
		case p.unreachable():
			p.fail("it has lost the database")
			return
		case p.ci.refuses:
			p.fail("a step fails")
			return
		}
		if p.judge.changes(p); p.ci.schema < p.to {
			p.ci.schema++
		} else {
			p.ci.schema--
		}
		p.say("concourse", "the schema is %d", p.ci.schema)
		p.goOn()
	})
}

func (p *migration) unreachable() bool {
	return p.cut || p.ci.down || p.env["CONCOURSE_POSTGRES_PASSWORD"] != p.ci.credentials()["password"]
}

func (p *migration) fail(why string) {
	p.end(why)
	p.units[concourse.MigrationUnit].state.Exit = "exit status 1"
}

func (p *migration) end(why string) {
	if p.over {
		return
	}
	p.over = true
	p.machine.migration = nil
	if p.ci.migrates == p {
		p.ci.migrates = nil
	}
	p.units[concourse.MigrationUnit].wanted = false
	p.say(p.unit.name, "the migration ends: %s", why)
}

// migrationView is what the supervisor knows of a migration: migration.go of that package.
type migrationView struct {
	known bool
	state concourse.State
	ended time.Duration
}

func (d *driver) lookAtMigration(seen *supervisor.Seen) {
	v, g, started := &d.migration, d.spec.Migrate, d.unit.files.memory.Started[concourse.MigrationUnit]
	d.status.Migration = supervisor.Progress{}
	if g == nil && started.Is == "" {
		*v = migrationView{}
		return
	}
	state := d.unit.machine.state(concourse.MigrationUnit)
	if !state.Running && (v.state.Running || !v.known) {
		v.ended = d.unit.now
	}
	v.known, v.state = true, state
	seen.Running[concourse.MigrationUnit] = state.Running
	if g == nil {
		return
	}
	if started.Is == g.ID && started.Tries > 0 && !state.Running {
		seen.MigrationRests = started.Rests(d.unit.now-v.ended, backoff)
		if state.Exit != "" && state.Exit != "exit status 0" {
			seen.MigrationFailed = "(" + state.Exit + ")"
		}
	}
	if g.Go {
		d.status.Migration = supervisor.Progress{Version: g.Version, From: g.From, To: g.To, Steps: int(max(g.From-g.To, g.To-g.From))}
		if !seen.NoSchema {
			d.status.Migration.Done = int(max(g.From-seen.Schema, seen.Schema-g.From))
		}
		if started.Is == g.ID && !started.At.IsZero() {
			d.status.Migration.Minutes = int(d.unit.time().Sub(started.At) / time.Minute)
		}
	}
}

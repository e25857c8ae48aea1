package plan

import (
	"cmp"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// text is what a unit may say: how it is, and why, and what to do where somebody has to.
type text struct {
	level  juju.Level
	format string
}

func (t text) status(args ...any) juju.Status {
	return juju.Status{Level: t.level, Message: fmt.Sprintf(t.format, args...)}
}

// All that a unit says.
var (
	wrongOptions     = text{juju.Blocked, "%s"} // see package options
	malformedVersion = text{juju.Blocked, "Malformed version %q: use the form 7.14.3"}

	upgradeFailed   = text{juju.Blocked, "Upgrade to v%s failed: the web server did not answer in time; see journalctl -u %s, then run upgrade again"}
	failedBefore    = text{juju.Blocked, "%s"} // what upgradeFailed or migrationFailed said
	migrationFailed = text{juju.Blocked, "Upgrade to v%s failed: the migration of the database ends %s; see journalctl -u %s on %s, then run upgrade again"}
	migrationFails  = text{juju.Blocked, "The migration of the database (schema %d to %d) ends %s; it is tried again, see journalctl -u %s"}

	secondUnit = text{juju.Blocked, "Machine taken by unit %s of this charm: remove this unit and add one on a machine of its own"}

	notMounted   = text{juju.Blocked, "Shared storage unavailable - attach it with `lxc config device add %s concourse-data disk pool=POOL source=VOLUME path=%s`"}
	unfitStorage = text{juju.Blocked, "Shared storage unavailable - %s"}
	otherVolume  = text{juju.Blocked, "Shared storage unavailable - another volume is mounted: detach it and attach the one with id %s at %s, or run accept-volume on the leader if that one is lost"}
	otherModel   = text{juju.Blocked, "Shared storage unavailable - the volume belongs to another model: detach it and attach one of this model, or run accept-volume on the leader"}
	newerVolume  = text{juju.Blocked, "Shared storage unavailable - a newer charm has used the volume: run juju refresh"}
	brokenVolume = text{juju.Blocked, "Storage unavailable - %s"}
	readOnly     = text{juju.Blocked, "%s unavailable - it is mounted read-only at %s: mount it read-write"}
	noExec       = text{juju.Blocked, "%s unavailable - it is mounted noexec at %s: mount it without noexec"}
	hungVolume   = text{juju.Blocked, "%s unavailable - %s does not answer: check the file server and the network to it"}
	noAccess     = text{juju.Blocked, "%s unavailable - the user " + concourse.User + " cannot start the web server: %s"}
	fullVolume   = text{juju.Blocked, "%s is full - %s: enlarge the volume or remove what is not needed"}

	waitingForAddress  = text{juju.Waiting, "Waiting for Juju to find this unit's address..."}
	databaseMissing    = text{juju.Blocked, "PostgreSQL database required"}
	waitingForDatabase = text{juju.Waiting, "Waiting for PostgreSQL database..."}
	waitingForKeys     = text{juju.Waiting, "Waiting for the leader's keys..."}
	waitingForVersion  = text{juju.Waiting, "Waiting for the version to run..."}
	waitingForTSA      = text{juju.Waiting, "Waiting for TSA connection info..."}
	waitingForWeb      = text{juju.Waiting, "Waiting for the web server at %s to answer..."}
	registering        = text{juju.Waiting, "Waiting for the web server to list this worker as running..."}

	databaseAway = text{juju.Waiting, "PostgreSQL %s"}
	newerSchema  = text{juju.Blocked, "The database has schema %d, newer than %d of Concourse v%s: run the version that made it, or a newer one; going back loses data"}
	refused      = text{juju.Blocked, "Downgrade to v%s refused: Concourse v%s has served with schema %d of the database, and to take it down to %d loses data; run upgrade version=%s, or set the option version, to stay"}
	olderSchema  = text{juju.Blocked, "The database has schema %d, older than %d of Concourse v%s, which runs: see that nothing else takes it down, then run systemctl restart %s"}
	exitsAgain   = text{juju.Blocked, "%s exits again and again %s; see journalctl -u %[1]s"}
	otherProgram = text{juju.Blocked, "%s executes %s and not Concourse v%s: run systemctl restart %[1]s on its machine"}

	newestUnknown  = text{juju.Blocked, "Cannot find the newest Concourse release: %s; set version, or release-url"}
	cannotInstall  = text{juju.Blocked, "Cannot install Concourse v%s: %s"}
	changedRelease = text{juju.Blocked, "Release v%s on the volume is not what the leader has installed: find out who has changed it; `rm` its link in releases/ has it installed anew"}
	unable         = text{juju.Blocked, "Cannot work on this machine: %s"}
	stuck          = text{juju.Blocked, "%s; it is tried again, see journalctl -u " + supervisor.Unit}

	preparing         = text{juju.Maintenance, "Preparing unit"}
	leaving           = text{juju.Maintenance, "Leaving the cluster"}
	leavingLast       = text{juju.Maintenance, "Leaving the cluster: the worker ends with its builds, in %s at most..."}
	upgrading         = text{juju.Maintenance, "Upgrading to v%s..."}
	migrating         = text{juju.Maintenance, "Migrating the database to v%s (schema %d to %d): %s%d min"}
	takingDown        = text{juju.Maintenance, "Taking the database back to v%s (schema %d to %d): %s%d min"}
	migratedElsewhere = text{juju.Maintenance, "Waiting for %s to change the schema of the database (%d to %d)..."}
	haltsFor          = text{juju.Maintenance, "Waiting for the web server of %s to end before the database is migrated..."}
	downloading       = text{juju.Maintenance, "Downloading Concourse CI %s... %d%%"}
	waitingFor        = text{juju.Maintenance, "Waiting for binaries v%s..."}
	starting          = text{juju.Maintenance, "Starting Concourse v%s..."}

	pausing = text{juju.Maintenance, "Pausing the worker: it ends with its builds, in %s at most..."}
	paused  = text{juju.Maintenance, "Paused: the worker is out (v%s), run `resume`"}

	waitsForTurn   = text{juju.Maintenance, "Waiting for its turn to replace the worker (v%s)..."}
	landing        = text{juju.Maintenance, "Landing the worker for v%s: it ends with its builds, in %s at most..."}
	rolling        = text{juju.Maintenance, "Replacing the workers (v%s): %d of %d are through..."}
	rollingWithout = text{juju.Maintenance, "Replacing the workers (v%s): %d of %d are through, and there is no worker of %s..."}
	rollingStopped = text{juju.Blocked, "Replacing the workers (v%s) has stopped at %d of %d: the new worker of %s does not run; see journalctl -u " + concourse.WorkerUnit + " there, and set right what it names, or remove the unit"}

	ready    = text{juju.Active, "Ready (v%s)"}
	webReady = text{juju.Active, "Web server ready (v%s)"}

	webReadyLanding = text{juju.Active, "Web server ready (v%s), the unit's worker ends with its builds"}
	workerReady     = text{juju.Active, "Worker ready (v%s)"}
)

// SecondUnit is what a unit says on whose machine is another one already.
func SecondUnit(other string) juju.Status { return secondUnit.status(other) }

// Unable is what a unit says whose machine lets a hook do nothing.
func Unable(err error) juju.Status { return unable.status(oneLine(err.Error())) }

// Leaving is what a unit says that is being removed.
func Leaving(spec supervisor.Spec, s supervisor.Status) juju.Status {
	if s.Landing && spec.DrainTimeout > 0 {
		return leavingLast.status(spec.DrainTimeout)
	}
	return leaving.status()
}

func (m *maker) checkVolume() {
	storage, detail := "Storage", oneLine(m.Status.Detail)
	if m.Config.Shared() {
		storage = "Shared storage"
	}
	switch m.Status.Fault {
	case supervisor.Healthy:
	case supervisor.NotMounted:
		m.say(notMounted, m.Hostname, m.Volume)
	case supervisor.Unmarked:
		m.say(unfitStorage, detail)
	case supervisor.Foreign:
		m.say(otherVolume, m.Status.VolumeID, m.Volume)
	case supervisor.OtherModel:
		m.say(otherModel)
	case supervisor.Newer:
		m.say(newerVolume)
	case supervisor.ReadOnly:
		m.say(readOnly, storage, m.Volume)
	case supervisor.NoExec:
		m.say(noExec, storage, m.Volume)
	case supervisor.Hung:
		m.say(hungVolume, storage, m.Volume)
	case supervisor.NoAccess:
		m.say(noAccess, storage, detail)
	case supervisor.Full:
		if m.Status.Failure == "" && m.Status.Stuck == "" { // which say what could not be done for it
			m.say(fullVolume, storage, detail)
		}
	default:
		m.say(brokenVolume, detail)
	}
}

func (m *maker) checkDatabase() {
	switch {
	case !m.web || m.database != nil:
	case !m.related():
		m.say(databaseMissing)
	default:
		m.say(waitingForDatabase)
	}
}

// checkSchema says what keeps the web server from serving though it may answer. While all
// units go to another version the schema goes with them.
func (m *maker) checkSchema() {
	s := m.Status
	switch schema := s.Schema; {
	case m.web && s.Run != "" && s.Database != "":
		m.say(databaseAway, oneLine(s.Database))
	case !m.web || schema.Release == "" || schema.Release != m.target:
	case schema.Due || m.goesBack():
	case schema.Database > schema.Supported && m.active != "" && m.active != m.target:
		m.say(refused, m.target, m.active, schema.Database, schema.Supported, m.active)
	case schema.Database > schema.Supported:
		m.say(newerSchema, schema.Database, schema.Supported, schema.Release)
	default:
		m.say(olderSchema, schema.Database, schema.Supported, schema.Release, concourse.ServerUnit)
	}
}

// checkService says what keeps a service from answering for good.
func (m *maker) checkService(unit string, a supervisor.Answer) {
	switch {
	case a.Exits != "":
		m.say(exitsAgain, unit, a.Exits)
	case a.Executes != "":
		m.say(otherProgram, unit, a.Executes, m.Status.Run)
	}
}

// explain says how far the unit is, when nothing worse was said before.
func (m *maker) explain() {
	m.checkMigration()
	m.checkSchema()
	m.checkService(concourse.ServerUnit, m.Status.Web)
	m.checkService(concourse.WorkerUnit, m.Status.Worker)
	s, run := m.Status, m.Status.Run
	switch {
	case s.Stuck != "":
		m.say(stuck, capital(oneLine(s.Stuck)))
	case m.target == "" && s.NewestFailure != "":
		m.say(newestUnknown, oneLine(s.NewestFailure))
	case m.target == "":
		m.say(waitingForVersion)
	case s.Failure != "" && s.Trying == m.target && run != m.target:
		reason := strings.TrimPrefix(s.Failure, fmt.Sprintf("cannot install %s %s: ", product.Concourse.Name, m.target))
		m.say(cannotInstall, m.target, oneLine(reason))
	case s.Changed != "":
		m.say(changedRelease, s.Changed)
	case m.pause() == relations.Pausing:
		m.say(pausing, m.Config.DrainTimeout)
	case m.pause() == relations.Paused && run != "":
		m.say(paused, run)
	case s.Landing && s.Due != "":
		m.say(landing, s.Due, m.Config.DrainTimeout)
	case s.Due != "":
		m.checkTurns()
		m.say(waitsForTurn, s.Due)
	case run != "" && (run != m.target || m.first && m.active != "" && m.active != m.target):
		m.say(upgrading, m.target)
	case run == "" && s.Trying == m.target && s.Holder == m.Juju.Unit:
		m.say(downloading, m.target, s.Percent)
	case run == "" && s.Installed != m.target:
		m.say(waitingFor, m.target)
	case m.worker && m.spec.Worker == nil:
		m.say(waitingForTSA)
	case !m.serves():
		m.say(starting, cmp.Or(run, m.target))
	case m.worker && m.Config.Mode == "auto" && !m.heard(m.Status.Answering, m.serving):
		m.say(waitingForWeb, m.webAt(m.serving))
	case m.worker && !m.registered():
		m.say(registering)
	default:
		m.checkTurns()
		m.explainReady()
	}
}

// explainReady says that the unit is as it should be.
func (m *maker) explainReady() {
	s, run := m.Status, m.Status.Run
	switch {
	case m.web && m.worker:
		m.say(ready, run)
	case m.web && s.Landing:
		m.say(webReadyLanding, run)
	case m.web:
		m.say(webReady, run)
	default:
		m.say(workerReady, run)
	}
}

// longest holds a URL, two digests and what to do.
const longest = 400

// oneLine keeps a status readable in a table. What is too long loses its middle: what is
// wrong comes first, and what to do last.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest/2]+" ... "+s[len(s)-longest/2:], "")
}

// capital begins a sentence.
func capital(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:]
}

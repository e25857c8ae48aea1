package suite

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// Scenario is an entry of the registry.
type Scenario struct {
	Name   string // lower-case words with dashes between them: it is a folder, too
	Proves string // one sentence: what is true if it passes
	Group  string // scenarios that are chosen together, such as by one job of a CI
	Needs  Needs
	Known  Known
	// OnRequest leaves it out unless it is asked for by its name.
	OnRequest bool
	// Takes is how long it takes about. Where several run at once, the longest begin
	// first; 0 is not known, and comes after them.
	Takes time.Duration
	// Alone says why no other may run beside it; empty for one that bears others.
	Alone string
	// Sample is its number where it runs several times, from 1; see Rounds.
	Sample int
	Run    func(context.Context, scenarios.T, cluster.Cluster, scenarios.Inputs)
}

// Known is the one way in which a scenario must fail today, as something is missing that
// it demands. The zero value is for scenarios that must pass.
type Known struct {
	Rule    string // that is broken, and no other
	Missing string // in words
}

// All returns the registry, in the order in which scenarios run.
func All() []Scenario {
	return []Scenario{
		{
			Name:   "auto",
			Group:  "cluster",
			Proves: "Three units on one volume download each release once and run builds on every worker, also after an upgrade, with a fourth unit, and without it.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  190 * time.Second,
			Run:    scenarios.Auto,
		},
		{
			Name:   "all",
			Group:  "cluster",
			Proves: "A unit with mode=all serves and works; a second one on the same volume downloads nothing, and left alone their hooks rest.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  90 * time.Second,
			Run:    scenarios.All,
		},
		{
			Name:   "upgrade",
			Group:  "cluster",
			Proves: "A cluster moves to another release by the option and by the action, and back, with one download each.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  270 * time.Second,
			Run:    scenarios.Upgrade,
		},
		{
			Name:   "schema",
			Group:  "cluster",
			Proves: "An upgrade over four years, with a real change of the database's schema, keeps the cluster running builds.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  180 * time.Second,
			Run:    scenarios.Schema,
		},
		{
			Name:   "turns",
			Group:  "cluster",
			Proves: "Workers take turns in an upgrade and for an option, and lose no build.",
			Needs:  Needs{Memory: 5 << 30},
			Takes:  500 * time.Second,
			Run:    scenarios.Turns,
		},
		{
			Name:   "replacing-stops",
			Group:  "cluster",
			Proves: "An option with which no worker starts takes one worker away, and no more.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  350 * time.Second,
			Run:    scenarios.ReplacingStops,
		},
		{
			Name:   "maintenance",
			Group:  "cluster",
			Proves: "A worker that is paused, started anew, or removed with its unit loses no build; a paused one stays out when its machine boots, and comes along in an upgrade.",
			Needs:  Needs{Memory: 5 << 30},
			Takes:  950 * time.Second,
			Run:    scenarios.Maintenance,
		},
		{
			Name:   "failover-with-builds",
			Group:  "faults",
			Proves: "No build is lost when the web server's machine is.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  170 * time.Second,
			Run:    scenarios.FailoverWithBuilds,
		},
		{
			Name:   "kept-builds",
			Group:  "cluster",
			Proves: "No build is lost when leadership moves, the charm is refreshed or an option of the web server changes.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  840 * time.Second,
			Run:    scenarios.KeptBuilds,
		},
		{
			Name:   "leader-stops",
			Group:  "faults",
			Proves: "An upgrade comes to its end when the leader's machine stops in any of its phases.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  600 * time.Second,
			Run:    scenarios.LeaderStops,
		},
		{
			Name:   "specification-auto",
			Group:  "cluster",
			Proves: "The commands that the specification has for mode=auto do what it says.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  400 * time.Second,
			Run:    scenarios.SpecificationAuto,
		},
		{
			Name:   "specification-all",
			Group:  "cluster",
			Proves: "The commands that the specification has for mode=all do what it says.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  240 * time.Second,
			Run:    scenarios.SpecificationAll,
		},
		{
			Name:   "web-restart",
			Group:  "cluster",
			Proves: "An option of the web server silences it for a moment only.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  100 * time.Second,
			Run:    scenarios.WebRestart,
		},
		{
			Name:   "downgrade",
			Group:  "cluster",
			Proves: "A release that cannot read the database's schema is refused, or made to run jobs.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  170 * time.Second,
			Run:    scenarios.Downgrade,
		},
		{
			Name:   "slow-migration",
			Group:  "cluster",
			Proves: "A change of the schema has the time that it takes.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  600 * time.Second,
			Run:    scenarios.SlowMigration,
		},
		{
			Name:   "migration",
			Group:  "cluster",
			Proves: "A change of the schema that is held up says how far it is, a unit that was off meanwhile comes back to the new release, and a downgrade is refused with the reason.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  830 * time.Second,
			Run:    scenarios.Migration,
		},
		{
			Name:   "dns",
			Group:  "faults",
			Proves: "Builds resolve names on a machine whose own resolver is a stub.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  150 * time.Second,
			Run:    scenarios.DNS,
		},
		{
			Name:   "lostunit",
			Group:  "faults",
			Proves: "What a unit has left that was removed by force is cleared by the others.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  300 * time.Second,
			Run:    scenarios.LostUnit,
		},
		{
			Name:   "replacedvolume",
			Group:  "faults",
			Proves: "A volume that replaces a lost one is refused until it is accepted, and then used by all units.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  240 * time.Second,
			Run:    scenarios.ReplacedVolume,
		},
		{
			Name:   "offunit",
			Group:  "faults",
			Proves: "A unit that was off for an upgrade comes back on the new release, and starts nothing of the old one.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  240 * time.Second,
			Run:    scenarios.OffUnit,
		},
		{
			Name:   "refresh",
			Group:  "cluster",
			Proves: "Units of an earlier charm and of this one share a volume, while one after the other is refreshed, and no service is disturbed.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  170 * time.Second,
			Run:    scenarios.Refresh,
		},
		{
			Name:   "loss-while-downloading",
			Group:  "faults",
			Proves: "A volume that is lost in the middle of a download is said within half a minute, and the release is installed all the same.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  130 * time.Second,
			Run:    scenarios.LossWhileDownloading,
		},
		{
			Name:   "read-only",
			Group:  "faults",
			Proves: "A volume that can only be read is said within half a minute and recovered from without a human.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  140 * time.Second,
			Run:    scenarios.ReadOnly,
		},
		{
			Name:   "bad-input",
			Group:  "errors",
			Proves: "Whatever operator or network get wrong is named with its remedy, leaves nothing half installed, and is gone by itself with its cause.",
			Needs:  Needs{Memory: 2 << 30},
			Takes:  160 * time.Second,
			Run:    scenarios.BadInput,
		},
		{
			Name:   "mirror",
			Group:  "errors",
			Proves: "Mirrors that limit rates, break off, know no ranges or are slow cost no second download, and one that is down is asked rarely.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  230 * time.Second,
			Run:    scenarios.Mirror,
		},
		{
			Name:   "storage-loss",
			Group:  "faults",
			Proves: "A unit whose volume is gone, unmarked or another one says so within half a minute, writes nothing underneath, and recovers without a human.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  170 * time.Second,
			Run:    scenarios.StorageLoss,
		},
		{
			Name:   "crash",
			Group:  "faults",
			Proves: "Killed services, stopped, frozen and rebooted machines run again without a human and without a download.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  210 * time.Second,
			Run:    scenarios.Crash,
		},
		{
			Name:   "failover",
			Group:  "faults",
			Proves: "Another unit serves when the web server's machine is gone, and a leader that moves disturbs nothing.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  200 * time.Second,
			Run:    scenarios.Failover,
		},
		{
			Name:   "corruption",
			Group:  "faults",
			Proves: "A damaged release is installed anew beside what runs.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  150 * time.Second,
			Run:    scenarios.Corruption,
		},
		{
			Name:   "flipped-byte",
			Group:  "faults",
			Proves: "A byte of a release that has changed on the volume is found, and the release installed anew.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  160 * time.Second,
			Known:  Known{Rule: "sound-volume", Missing: "nobody reads the bytes of a release again that is installed"},
			Run:    scenarios.FlippedByte,
		},
		{
			Name:   "add-unit",
			Group:  "cluster",
			Proves: "Units that are added during a download wait for it, and a unit that is added to a running cluster downloads nothing.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  170 * time.Second,
			Run:    scenarios.AddUnit,
		},
		{
			Name:   "storage",
			Group:  "cluster",
			Proves: "A volume that Juju has made for one unit is shared with others once it is marked, costs one download, and outlives its unit.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  200 * time.Second,
			Run:    scenarios.Storage,
		},
		{
			Name:   "contention",
			Group:  "cluster",
			Proves: "Of three units that begin together one gets the download lock, and the log tells who had it.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  100 * time.Second,
			Run:    scenarios.Contention,
		},
		{
			Name:   "remove",
			Group:  "cluster",
			Proves: "The web server's unit and an application can be removed, and the application deployed again on its volume without a download.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  290 * time.Second,
			Run:    scenarios.Remove,
		},
		{
			Name:   "baseline",
			Group:  "cluster",
			Proves: "Without shared storage each unit downloads for itself, and nothing else differs.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  110 * time.Second,
			Run:    scenarios.Baseline,
		},
		{
			Name:   "baseline-all",
			Group:  "cluster",
			Proves: "Without shared storage each unit that serves and works downloads for itself.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  90 * time.Second,
			Run:    scenarios.BaselineAll,
		},
		{
			Name:   "disk-full",
			Group:  "faults",
			Proves: "An upgrade for which there is no room is refused with the reason, disturbs nothing, and is made when there is room.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  120 * time.Second,
			Run:    scenarios.DiskFull,
		},
		{
			Name:   "juju-model",
			Group:  "simulation",
			Proves: "The model of Juju that charm/sim explores allows what real Juju does.",
			Needs:  Needs{Memory: 3 << 30},
			Takes:  300 * time.Second,
			Run:    scenarios.JujuModel,
		},
		{
			Name:   "network",
			Group:  "faults",
			Proves: "A worker that is cut off costs the others nothing, is not ready unless it is registered, and is back without a human.",
			Needs:  Needs{Memory: 4 << 30},
			Takes:  330 * time.Second,
			Run:    scenarios.Network,
		},
		{
			Name:      "scale",
			Group:     "size",
			Proves:    "Ten units on one volume are one download.",
			Needs:     Needs{Memory: 8 << 30},
			Takes:     300 * time.Second,
			OnRequest: true,
			Run:       scenarios.Scale,
		},
	}
}

// verdict judges how a scenario ended. The text, if there is one, is a failure more.
func (k Known) verdict(failures []string, violations []judge.Violation) (v report.Verdict, text string) {
	other := slices.ContainsFunc(violations, func(v judge.Violation) bool { return v.Rule != k.Rule })
	switch {
	case k.Rule == "" && len(failures) == 0:
		return report.OK, ""
	case k.Rule == "":
		return report.Broken, ""
	case len(failures) == 0:
		return report.Broken, fmt.Sprintf("it passes, but is known to break the rule %s (%s): take Known from its entry", k.Rule, k.Missing)
	case len(failures) == len(violations) && !other: // Each violation is one failure.
		return report.Known, ""
	}
	return report.Broken, fmt.Sprintf("it is known to break the rule %s (%s), and nothing else", k.Rule, k.Missing)
}

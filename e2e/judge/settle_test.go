package judge_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// A rule that is given time may be broken unseen: whoever adds one here knows why.
func TestRulesThatMaySettle(t *testing.T) {
	var settle, recover []string
	for _, rule := range judge.Always() {
		switch {
		case rule.Settles != "":
			settle = append(settle, rule.Name)
			require.Regexp(t, `^[A-Z].*\.$`, rule.Settles, "%s: the reason is a sentence", rule.Name)
			require.Empty(t, rule.Recovers, rule.Name)
		case rule.Recovers != "":
			recover = append(recover, rule.Name)
			require.Regexp(t, `^\w.*\.$`, rule.Recovers, "%s: the reason is a sentence", rule.Name)
		}
	}
	require.Equal(t, []string{"nothing-left", "collects-old", "one-line-a-download", "disk-use", "workers-registered"}, settle)
	require.Equal(t, []string{"runs-its-role", "sound-volume", "web-answers"}, recover)
}

func TestMaySettle(t *testing.T) {
	never, settles, recovers := judge.Rule{}, judge.Rule{Settles: "It does."}, judge.Rule{Recovers: "It does."}
	for name, test := range map[string]struct {
		change func(r *observed)
		fault  bool // since the observation at rest before
	}{
		"all well": {func(*observed) {}, false},
		"a fault that lasts": {func(r *observed) {
			r.Faults = []observation.Fault{{Name: "volume lost", Begin: at(10)}}
		}, true},
		"a fault that has ended":       {func(r *observed) { r.Faults = []observation.Fault{fault("worker killed", 180, 180)} }, true},
		"a fault before the last rest": {func(r *observed) { r.Faults = []observation.Fault{fault("worker killed", 20, 30)} }, false},
		"a fault before a glance": {func(r *observed) {
			r.Faults = []observation.Fault{fault("worker killed", 180, 180)}
			glance := r.Observations[upgraded]
			glance.Resting, glance.Time = false, at(185)
			r.Observations = append(r.Observations[:upgraded:upgraded], glance, r.Observations[upgraded])
		}, true},
		"a file changed":    {acted("change releases/7.14.2/bin/runc on the volume V"), true},
		"an option changed": {acted("configure ci, version=7.14.3"), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := sound()
			test.change(r)
			require.False(t, never.MaySettle(*r))
			require.True(t, settles.MaySettle(*r))
			require.Equal(t, test.fault, recovers.MaySettle(*r))
		})
	}
	require.False(t, recovers.MaySettle(observed{}), "nothing was observed")
}

// acted has the scenario do something shortly before the last observation.
func acted(name string) func(r *observed) {
	return func(r *observed) {
		r.Acts = append(r.Acts, observation.Act{Name: name, Time: r.Observations[upgraded].Time.Add(-1)})
	}
}

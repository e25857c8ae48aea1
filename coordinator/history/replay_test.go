package history_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
)

// upgrade is what is seen of a volume while units install 7.14.2, then 7.14.3, and then
// collect 7.14.1, which was there before.
func upgrade() []*history.Volume {
	volume := func(versions ...string) *history.Volume {
		v := &history.Volume{
			Claims: map[string][]history.Claim{}, Releases: map[string]string{}, Pins: map[string]string{},
			Publishers: map[string]string{},
		}
		for i, version := range versions {
			v.Activations = append(v.Activations, history.Activation{Number: i + 1, Version: version, Unit: "ci/0"})
			v.Claims[version] = []history.Claim{{Generation: 1, Unit: "ci/0", Nonce: "N" + version, Ended: true}}
			v.Releases[version] = version + ".1"
			v.Entries = append(v.Entries, version+".1")
			v.Publishers[version+".1"] = "ci/0"
			v.Pins["ci-0"] = version + ".1"
		}
		return v
	}
	first, second, third, last := volume("7.14.1"), volume("7.14.1", "7.14.2"), volume("7.14.1", "7.14.2"), volume("7.14.1", "7.14.2", "7.14.3")
	third.Claims["7.14.3"] = []history.Claim{{Generation: 1, Unit: "ci/0", Nonce: "N7.14.3"}}
	third.Staged = []string{"7.14.3.1.ci-0"}
	last.Claims["7.14.1"] = append(last.Claims["7.14.1"], history.Claim{Generation: 2, Unit: "ci/0", Nonce: "C", Ended: true})
	delete(last.Releases, "7.14.1")
	last.Entries = last.Entries[1:]
	return []*history.Volume{first, second, third, last}
}

// The looks of upgrade.
const (
	begun = iota
	upgraded
	downloading
	collected
)

func TestReplay(t *testing.T) {
	type looks = []*history.Volume
	// claims are the generations of 7.14.3, which each unit ci/N has got as number N.
	claims := func(v *history.Volume, ended bool, generations ...int) {
		v.Claims["7.14.3"] = nil
		for _, n := range generations {
			unit := "ci/" + string(rune('0'+n%10))
			v.Claims["7.14.3"] = append(v.Claims["7.14.3"], history.Claim{Generation: n, Unit: unit, Nonce: unit, Ended: ended})
		}
	}
	publish := func(v *history.Volume, entry string) {
		v.Releases["7.14.3"], v.Entries[1] = entry, entry
		v.Pins, v.Publishers = nil, nil
	}
	for name, test := range map[string]struct {
		change func(looks)
		want   string // is in the first thing that is found; nothing is, if empty
	}{
		"all is well": {func(looks) {}, ""},
		"little seen": {func(l looks) { *l[begun], *l[upgraded] = history.Volume{}, history.Volume{} }, ""},

		"a generation given twice": {func(l looks) {
			l[collected].Claims["7.14.2"][0].Unit, l[collected].Claims["7.14.2"][0].Nonce = "ci/1", "M"
		}, "two units hold one generation: generation 1 of 7.14.2 is that of ci/1, and was that of ci/0"},
		"a number that was pruned, and taken by who had slept": {func(l looks) {
			claims(l[begun], true, 1)
			claims(l[upgraded], true, 2, 3, 4, 5, 6, 7, 8, 9)
			claims(l[downloading], false, 2, 3, 4, 5, 6, 7, 8, 9, 10)
			claims(l[collected], true, 1, 3, 4, 5, 6, 7, 8, 9, 10)
			l[collected].Claims["7.14.3"][0].Nonce = "M"
			publish(l[collected], "7.14.3.10")
		}, ""},
		"a claim made on a full volume": {func(l looks) { l[downloading].Claims["7.14.3"][0] = history.Claim{Generation: 1} }, ""},
		"the newest generation gone": {func(l looks) {
			claims(l[upgraded], true, 1, 2, 3)
			claims(l[downloading], true, 1, 2, 3)
			claims(l[collected], false, 1)
			publish(l[collected], "7.14.3.1")
			l[upgraded].Entries, l[downloading].Entries = append(l[upgraded].Entries, "7.14.3.1"), append(l[downloading].Entries, "7.14.3.1")
		}, "two units hold one generation: the newest claim of 7.14.3 was generation 3, and is 1"},
		"another publisher than the holder": {func(l looks) { l[collected].Publishers["7.14.3.1"] = "ci/2" },
			"two units hold one generation: 7.14.3.1 was published by ci/2, and its generation is that of ci/0"},

		"published without a claim": {func(l looks) { publish(l[collected], "7.14.3.2") },
			"a release is published under a claim that nobody held: 7.14.3.2"},
		"there before, without a claim": {func(l looks) { l[begun].Entries = append(l[begun].Entries, "7.14.2.1") },
			"under a claim that nobody held: 7.14.2.1"},
		"published after the claim was given up": {func(l looks) { l[downloading].Claims["7.14.3"][0].Ended = true },
			"under a claim that nobody held: 7.14.3.1"},
		"published by who had lost its generation": {func(l looks) {
			claims(l[upgraded], false, 1, 2)
			claims(l[downloading], false, 1, 2)
			claims(l[collected], false, 1, 2)
			l[downloading].Staged = []string{"7.14.3.2.ci-2"}
			publish(l[collected], "7.14.3.1")
			l[downloading].Entries = append(l[downloading].Entries, "7.14.3.1")
		}, "a holder published after a newer one had begun to download: 7.14.3 leads to 7.14.3.1"},
		"stored by who had lost its generation": {func(l looks) {
			claims(l[upgraded], false, 1, 2)
			claims(l[downloading], false, 1, 2)
			claims(l[collected], false, 1, 2)
			l[downloading].Staged = []string{"7.14.3.2.ci-2"}
			l[collected].Entries = append(l[collected].Entries, "7.14.3.1")
			publish(l[collected], "7.14.3.2")
			l[downloading].Entries = append(l[downloading].Entries, "7.14.3.2")
		}, "a holder published after a newer one had begun to download: 7.14.3.1 was put into the store"},
		"published in the last moment": {func(l looks) {
			claims(l[upgraded], false, 1, 2)
			claims(l[downloading], false, 1, 2)
			claims(l[collected], false, 1, 2)
			publish(l[collected], "7.14.3.1")
		}, ""},
		"installed anew": {func(l looks) {
			l[collected].Claims["7.14.2"] = append(l[collected].Claims["7.14.2"], history.Claim{Generation: 2, Unit: "ci/1", Nonce: "M"})
			l[collected].Releases["7.14.2"] = "7.14.2.2"
			l[collected].Entries = append(l[collected].Entries, "7.14.2.2")
		}, ""},
		"linked to an older entry": {func(l looks) {
			for _, v := range l {
				v.Claims["7.14.2"] = []history.Claim{{Generation: 1}, {Generation: 2}}
			}
			l[upgraded].Entries, l[downloading].Entries, l[collected].Entries = append(l[upgraded].Entries, "7.14.2.2"), append(l[downloading].Entries, "7.14.2.2"), append(l[collected].Entries, "7.14.2.2")
			l[upgraded].Releases["7.14.2"], l[downloading].Releases["7.14.2"] = "7.14.2.2", "7.14.2.2"
			l[downloading].Staged = append(l[downloading].Staged, "7.14.2.1.ci-0")
		}, "a holder published after a newer one had begun to download: 7.14.2 leads to 7.14.2.1"},

		"current, and gone": {func(l looks) {
			l[collected].Pins = nil
			delete(l[collected].Releases, "7.14.3")
		}, "the current or the previous release is gone: 7.14.3"},
		"previous, and collected": {func(l looks) {
			l[collected].Claims["7.14.2"] = append(l[collected].Claims["7.14.2"], history.Claim{Generation: 2})
			delete(l[collected].Releases, "7.14.2")
		}, "the current or the previous release is gone: 7.14.2"},
		"pinned, and collected": {func(l looks) {
			l[collected].Pins["ci-1"], l[collected].Entries = "7.14.1.1", append(l[collected].Entries, "7.14.1.1")
		},
			"a pinned release is gone: 7.14.1"},
		"pinned long after it was collected": {func(l looks) {
			*l[downloading] = *upgrade()[collected]
			l[downloading].Entries = append(l[downloading].Entries, "7.14.1.1")
			l[collected].Pins["ci-1"], l[collected].Entries = "7.14.1.1", append(l[collected].Entries, "7.14.1.1")
		}, "a pinned release is gone: 7.14.1"},
		"a pinned entry gone": {func(l looks) { l[downloading].Pins["ci-1"] = "7.14.2.2" },
			"a pinned entry is gone: ci-1 has pinned 7.14.2.2"},
		"a pin of the first layout": {func(l looks) { l[downloading].Pins["ci-1"] = "7.14.2" }, ""},
		"a release of the first layout": {func(l looks) {
			for _, v := range l[:collected] {
				v.Releases["7.14.1"], v.Entries[0] = "7.14.1.0", "7.14.1.0"
			}
			l[begun].Pins = nil
		}, ""},
		"gone, and nobody had a claim": {func(l looks) { l[collected].Claims["7.14.1"] = l[collected].Claims["7.14.1"][:1] },
			"a release's path is missing, and nobody has collected it: 7.14.1 led to 7.14.1.1"},
		"its entry gone": {func(l looks) { l[upgraded].Entries = l[upgraded].Entries[1:] },
			"a release's path is missing, and nobody has collected it: 7.14.1"},
		"torn":                            {func(l looks) { l[downloading].Torn = []string{"7.14.2"} }, "a published release is incomplete: 7.14.2"},
		"torn, and damaged by others":     {func(l looks) { l[downloading].Torn, l[downloading].Damaged = []string{"7.14.2"}, true }, ""},
		"looked into when it was made":    {func(l looks) { l[upgraded].Torn = []string{"7.14.2"} }, ""},
		"looked into when it was no more": {func(l looks) { l[collected].Torn = []string{"7.14.1"} }, ""},

		"activated without knowing the last one": {func(l looks) { l[collected].Activations[2].Number = 4 },
			`ci/0 has activated 7.14.3 as number 4, and number 2 was "7.14.2"`},
		"activated twice": {func(l looks) {
			l[collected].Activations = append(l[collected].Activations, history.Activation{Number: 4, Version: "7.14.3", Unit: "ci/1"})
		}, `an activation replaces one that it was decided without: ci/1 has activated 7.14.3 as number 4`},
		"an activation replaced": {func(l looks) { l[collected].Activations[0].Unit = "ci/1" },
			"number 1 is 7.14.1 by ci/1, and was 7.14.1 by ci/0"},
		"an activation gone": {func(l looks) {
			l[downloading].Activations = l[downloading].Activations[:1]
			l[collected].Activations = nil
		},
			"number 2, 7.14.2, is gone"},
		"an activation that cannot be read": {func(l looks) {
			l[downloading].Activations[0] = history.Activation{Number: 1}
			l[collected].Activations[0] = history.Activation{Number: 1}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			all := upgrade()
			test.change(all)
			var r history.Replay
			var found []string
			for _, v := range all {
				before := *v
				before.Entries = slices.Clone(v.Entries)
				before.Releases = maps.Clone(v.Releases)
				for _, err := range r.Next(*v) {
					found = append(found, err.Error())
				}
				require.Equal(t, before, *v, "the look was changed")
			}
			if test.want == "" {
				require.Empty(t, found)
				return
			}
			require.NotEmpty(t, found)
			require.Contains(t, found[0], test.want)
		})
	}
}

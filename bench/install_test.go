package bench

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

func TestInstallRows(t *testing.T) {
	tmpfs, disk := &place{name: "tmpfs", fs: "tmpfs"}, &place{name: "disk", fs: "ext4"}
	measured := installs{
		floors: floors{download: []float64{1, 1, 1}, gunzip: []float64{2, 2, 2}, write: []float64{4, 4, 4}, tree: []float64{5, 5, 5}},
		ensure: map[string][]float64{"tmpfs": {2, 3, 90}, "disk": {5, 5, 5}},
		work:   map[string][]float64{"tmpfs": {3}, "disk": {3}},
		tools:  map[string][]float64{"tmpfs": {6, 6, 6}, "disk": {10, 10, 10}},
	}
	targets, err := threshold.Targets()
	require.NoError(t, err)
	type limit struct {
		value, limit float64
		verdict      report.Verdict
	}
	for _, test := range []struct {
		what          string
		experiment    string
		kind          kind
		files         int
		place         *place
		cold, against limit
	}{
		{"published, in memory", "install", realLike, 800, tmpfs, limit{1.5, 1.15, report.Missed}, limit{2, 0, report.Reported}},
		{"published, on disk", "install", realLike, 800, disk, limit{1.25, 1.15, report.Missed}, limit{2, 2, report.OK}},
		{"compressible, in memory", "install-compressible", compressible, 800, tmpfs, limit{1.5, 1.15, report.Missed}, limit{2, 1.8, report.OK}},
		{"compressible, on disk", "install-compressible", compressible, 800, disk, limit{1.25, 1.15, report.Missed}, limit{2, 1.8, report.OK}},
		{"many, in memory", "install-many", compressible, 60_000, tmpfs, limit{1.5, 1.25, report.Missed}, limit{2, 1.8, report.OK}},
		{"many, on disk", "install-many", compressible, 60_000, disk, limit{1.25, 1.25, report.OK}, limit{2, 1.8, report.OK}},
	} {
		rows := measured.rows(test.place, archive{Kind: test.kind.name, kind: test.kind, Files: test.files})
		require.Len(t, rows, 2)
		for i, want := range []limit{test.cold, test.against} {
			row := rows[i]
			row.Measure = test.experiment + "." + row.Measure
			row, err = row.judged(targets)
			require.NoError(t, err)
			require.Equal(t, want, limit{row.Value, row.Limit, row.Verdict}, "%s: %s", test.what, row.Name)
			require.Equal(t, row.Value, row.Series[0].Median)
			require.Len(t, row.Series[0].Values, 3)
		}
	}
	rows := measured.rows(&place{name: "disk", dir: "/x", fs: "tmpfs"}, archive{kind: realLike})
	require.Equal(t, []report.Verdict{report.Skipped, report.Skipped}, []report.Verdict{rows[0].Verdict, rows[1].Verdict})
	rows = measured.rows(disk, archive{kind: realLike, Files: 800})
	require.Contains(t, rows[0].Note, "with that in the floor the value is 1.00")

	measured.tools = nil
	rows = measured.rows(disk, archive{kind: realLike, Files: 800})
	require.Equal(t, report.Skipped, rows[1].Verdict)
	require.Contains(t, rows[1].Note, "curl")
}

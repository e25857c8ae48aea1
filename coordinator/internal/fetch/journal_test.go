package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// line is the first of a journal that a download of s.Open would go on from.
func line(s Source, want Digest, size int64) string {
	return fmt.Sprintf(`{"url":%q,"validator":"","digest":%q,"size":%d,"boot":%q}`+"\n", redact(s.ArchiveURL("7.14.3")), want, size, bootID())
}

// TestDamagedJournals: whatever a journal says, nothing wrong is accepted, and
// the download gets on.
func TestDamagedJournals(t *testing.T) {
	data := noise(100)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) })
	s.Chunk = 10
	want := digestOf(data)
	good := line(s, want, 100)
	state := func(there, more string) string { return `{"there":` + there + more + "}\n" }
	const ten = `[{"start":0,"end":10}]`
	other := newSums(want)
	other["sha256"].Write(noise(20))
	sums, err := json.Marshal(other.states())
	require.NoError(t, err)
	for name, journal := range map[string]string{
		"empty":                    "",
		"noise":                    string(noise(1000)),
		"not JSON":                 "journal\n",
		"a list":                   "[1,2]\n",
		"null":                     "null\n",
		"huge size":                line(s, want, math.MaxInt64) + state(ten, ""),
		"size negative":            line(s, want, -100) + state(ten, ""),
		"number beyond all":        strings.Replace(good, "100", "99999999999999999999999", 1),
		"another size":             line(s, want, 99) + state(ten, ""),
		"negative start":           good + state(`[{"start":-10,"end":10}]`, ""),
		"behind the archive":       good + state(`[{"start":100,"end":110}]`, ""),
		"behind the file":          good + state(`[{"start":50,"end":70}]`, ""),
		"huge end":                 good + state(`[{"start":10,"end":9223372036854775807}]`, ""),
		"huge start and end":       good + state(`[{"start":9223372036854775806,"end":9223372036854775807}]`, ""),
		"end before the start":     good + state(`[{"start":20,"end":10}]`, ""),
		"nothing":                  good + state(`[{"start":10,"end":10}]`, ""),
		"overlap":                  good + state(`[{"start":0,"end":20},{"start":10,"end":30}]`, ""),
		"neighbours":               good + state(`[{"start":0,"end":20},{"start":20,"end":30}]`, ""),
		"out of order":             good + state(`[{"start":20,"end":30},{"start":0,"end":10}]`, ""),
		"many pieces":              good + state("["+strings.Repeat(`{"start":0,"end":10},`, 10_000)+`{"start":0,"end":10}]`, ""),
		"negative hashed":          good + state(ten, `,"hashed":-1,"sums":{"sha256":"AAAA"}`),
		"hashed beyond the prefix": good + state(ten, `,"hashed":50,"sums":{"sha256":"AAAA"}`),
		"hash states of nothing":   good + state(ten, `,"hashed":10`),
		"hash states of noise":     good + state(ten, `,"hashed":10,"sums":{"sha256":"AAAA"}`),
		"hash states of no bytes":  good + state(ten, `,"sums":`+string(sums)),
		"records of nothing":       good + strings.Repeat("{}\n", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			root := rootOf(t, dir)
			require.NoError(t, os.WriteFile(filepath.Join(dir, journalName), []byte(journal), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, partialName), data[:60], 0o600))
			require.LessOrEqual(t, Kept(root, "."), int64(60))
			require.GreaterOrEqual(t, Kept(root, "."), int64(0))
			got, sums, _, err := readIn(t, s, dir, want)
			require.NoError(t, err)
			require.True(t, got == string(data))
			require.Equal(t, want.Hex, sums["sha256"])
		})
	}
}

// A power cut can end a journal, and the partial archive, at any byte.
func TestTruncatedState(t *testing.T) {
	data := noise(100)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) })
	s.Chunk = 10
	done := t.TempDir()
	_, _, _, err := readIn(t, s, done, digestOf(data))
	require.NoError(t, err)
	journal, err := os.ReadFile(filepath.Join(done, journalName))
	require.NoError(t, err)
	for cut := 0; cut <= len(journal); cut++ {
		k := parseJournal(bytes.NewReader(journal[:cut]), 55, bootID())
		require.LessOrEqual(t, k.There.bytes(), int64(50))
		require.LessOrEqual(t, k.Hashed, int64(50))
		require.Equal(t, cut >= bytes.IndexByte(journal, '\n'), k.Size > 0)
	}
	for cut := 0; cut <= len(journal); cut += 127 {
		for _, there := range []int{0, 15, 100} {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, journalName), journal[:cut], 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, partialName), data[:there], 0o600))
			got, sums, d, err := readIn(t, s, dir, digestOf(data))
			require.NoError(t, err)
			require.LessOrEqual(t, d.Reused, int64(there))
			require.True(t, got == string(data), "journal cut at %d, archive at %d", cut, there)
			require.Equal(t, digestOf(data).Hex, sums["sha256"])
		}
	}
}

func TestKeptDigest(t *testing.T) {
	data := noise(testChunk * 4)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) })
	s.Chunk = testChunk
	want := digestOf(data)
	dir := t.TempDir()
	root := rootOf(t, dir)
	_, ok := KeptDigest(root, ".")
	require.False(t, ok, "nothing is kept")

	d, err := s.Open(t.Context(), "7.14.3", root, ".", want)
	require.NoError(t, err)
	require.NoError(t, d.Start())
	_, err = d.Wait()
	require.NoError(t, err)
	require.NoError(t, d.Close())
	kept, ok := KeptDigest(root, ".")
	require.True(t, ok)
	require.Equal(t, want, kept)

	// It needs no server.
	s.URL = "http://127.0.0.1:1"
	edit(t, dir, `"url":"`, `"url":"`+s.ArchiveURL("7.14.3")+`","was":"`)
	again, err := s.Open(t.Context(), "7.14.3", root, ".", kept)
	require.NoError(t, err)
	require.NoError(t, again.Start())
	got, err := io.ReadAll(again.Reader())
	require.NoError(t, err)
	require.True(t, bytes.Equal(data, got))
	require.NoError(t, again.Close())

	for name, damage := range map[string]func(dir string){
		"incomplete": func(dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, partialName), int64(len(data)-1)))
		},
		"without a digest": func(dir string) { edit(t, dir, want.String(), Digest{}.String()) },
		"with another":     func(dir string) { edit(t, dir, want.Hex, "noise") },
		"torn":             func(dir string) { require.NoError(t, os.Truncate(filepath.Join(dir, journalName), 10)) },
	} {
		t.Run(name, func(t *testing.T) {
			damaged := t.TempDir()
			require.NoError(t, os.CopyFS(damaged, os.DirFS(dir)))
			damage(damaged)
			_, ok := KeptDigest(rootOf(t, damaged), ".")
			require.False(t, ok)
		})
	}
}

// The oracle of TestDamagedJournals, for what nobody thought of. A state of the
// digest is as good as the journal: of bytes that it covers and that the disk
// changed later only the unpacker knows. So the partial file is right here, as far
// as the archive goes and as it goes, and noise behind.
func FuzzState(f *testing.F) {
	data, behind := noise(1000), noise(1<<16)
	want := digestOf(data)
	s := Source{URL: "http://source.test/o/r", Archive: testArchive, Policy: Policy{Attempts: 1, Stall: DefaultPolicy.Stall}, Chunk: 100, Connections: 2}
	s.Client = &http.Client{Transport: inProcess(func(w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) })}
	good := line(s, want, 1000)
	hashed, err := json.Marshal(state{There: spans{{0, 100}}, Hashed: 100, Sums: newSums(want).states()})
	require.NoError(f, err)
	f.Add(true, []byte(`{"there":[{"start":0,"end":100},{"start":300,"end":350}],"synced":true}`+"\n"), uint16(400))
	f.Add(true, append(hashed, '\n'), uint16(1000))
	f.Add(true, []byte(`{"there":[{"start":900,"end":1000}]}`+"\n"), uint16(2000))
	f.Add(false, []byte(good), uint16(10))
	f.Add(false, []byte(line(s, want, math.MaxInt64)), uint16(10))
	f.Fuzz(func(t *testing.T, header bool, journal []byte, there uint16) {
		if header {
			journal = append([]byte(good), journal...)
		}
		k := parseJournal(bytes.NewReader(journal), int64(there), bootID())
		if k.Size == 0 {
			return // the download begins anew
		}
		present, end := int64(0), int64(0)
		for i, s := range k.There {
			if s.Start < end || i > 0 && s.Start == end || s.End <= s.Start || s.End > min(int64(there), k.Size) {
				t.Fatalf("%v of a file of %d", k.There, there)
			}
			present += s.End - s.Start
			end = s.End
		}
		if present != k.There.bytes() || k.Hashed < 0 || k.Hashed > k.There.prefix() {
			t.Fatalf("%d bytes are said to be there and %d to be hashed: %v of %d are", k.There.bytes(), k.Hashed, k.There, there)
		}
		dir := t.TempDir()
		partial := append(bytes.Clone(data), behind...)[:there]
		if err := errors.Join(
			os.WriteFile(filepath.Join(dir, journalName), journal, 0o600),
			os.WriteFile(filepath.Join(dir, partialName), partial, 0o600),
		); err != nil {
			t.Fatal(err)
		}
		got, sums, _, err := readIn(t, s, dir, want)
		switch {
		case err != nil:
			t.Fatalf("a good server, and yet: %v", err)
		case sums["sha256"] == want.Hex && got != string(data):
			t.Fatal("wrong bytes have the right digest")
		}
	})
}

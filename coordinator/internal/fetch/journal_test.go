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
func line(s Source, want Digest, size, chunk int64) string {
	return fmt.Sprintf(`{"url":%q,"validator":"","digest":%q,"size":%d,"chunk":%d,"boot":%q}`+"\n", redact(s.ArchiveURL("7.14.3")), want, size, chunk, bootID())
}

// TestDamagedJournals: whatever a journal says, nothing wrong is accepted, and
// the download gets on.
func TestDamagedJournals(t *testing.T) {
	data := noise(100)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) })
	s.Chunk = 10
	want := digestOf(data)
	good := line(s, want, 100, 10)
	for name, journal := range map[string]string{
		"empty":                    "",
		"noise":                    string(noise(1000)),
		"not JSON":                 "journal\n",
		"a list":                   "[1,2]\n",
		"null":                     "null\n",
		"huge size":                line(s, want, math.MaxInt64, 1) + `{"chunk":1,"got":1}` + "\n",
		"huge size and chunk":      line(s, want, math.MaxInt64, math.MaxInt64-1) + `{"chunk":1,"got":1}` + "\n",
		"half of the numbers":      line(s, want, math.MaxInt64, 1<<62) + `{"chunk":1,"got":1}` + "\n",
		"many chunks":              line(s, want, 1<<40, 1) + `{"chunk":1,"got":1}` + "\n",
		"size and chunk negative":  line(s, want, -100, -10),
		"chunk of nothing":         line(s, want, 100, 0),
		"number beyond all":        strings.Replace(good, "100", "99999999999999999999999", 1),
		"another size":             line(s, want, 99, 10) + `{"chunk":0,"got":10}` + "\n",
		"negative chunk":           good + `{"chunk":-1,"got":10}` + "\n",
		"chunk that is not there":  good + `{"chunk":10,"got":10}` + "\n",
		"huge chunk number":        good + `{"chunk":9223372036854775807,"got":10}` + "\n",
		"negative count":           good + `{"chunk":1,"got":-10}` + "\n",
		"count beyond the chunk":   good + `{"chunk":1,"got":9223372036854775807}` + "\n",
		"negative hashed":          good + `{"got":10}` + "\n" + `{"hashed":-1,"sums":{"sha256":"AAAA"}}` + "\n",
		"hashed beyond the prefix": good + `{"got":10}` + "\n" + `{"hashed":50,"sums":{"sha256":"AAAA"}}` + "\n",
		"hash states of nothing":   good + `{"got":10}` + "\n" + `{"hashed":10}` + "\n",
		"hash states of noise":     good + `{"got":10}` + "\n" + `{"hashed":10,"sums":{"sha256":"AAAA"}}` + "\n",
		"synced of negative":       good + `{"got":10}` + "\n" + `{"synced":-5}` + "\n",
		"synced beyond":            good + `{"got":10}` + "\n" + `{"synced":9223372036854775807}` + "\n",
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
		k, ok := parseJournal(journal[:cut], 55, bootID())
		require.LessOrEqual(t, k.plan.present, int64(50))
		require.LessOrEqual(t, k.hashed, int64(50))
		require.Equal(t, cut > bytes.IndexByte(journal, '\n'), ok)
	}
	for cut := 0; cut <= len(journal); cut += 61 {
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
	s := Source{URL: "http://source.test/o/r", Layout: testLayout, Policy: Policy{Attempts: 1, Stall: DefaultPolicy.Stall}, Chunk: 100, Connections: 2}
	s.Client = &http.Client{Transport: inProcess(func(w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) })}
	good := line(s, want, 1000, 100)
	state, err := newSums(want).states()
	require.NoError(f, err)
	noted, err := json.Marshal(record{Hashed: 100, Sums: state})
	require.NoError(f, err)
	f.Add(true, []byte(`{"got":100}`+"\n"+`{"chunk":3,"got":50}`+"\n"+`{"synced":1}`+"\n"), uint16(400))
	f.Add(true, []byte(`{"got":100}`+"\n"+string(noted)+"\n"), uint16(1000))
	f.Add(true, []byte(`{"chunk":9,"got":100}`+"\n"), uint16(2000))
	f.Add(false, []byte(good), uint16(10))
	f.Add(false, []byte(line(s, want, math.MaxInt64, 1)), uint16(10))
	f.Fuzz(func(t *testing.T, header bool, journal []byte, there uint16) {
		if header {
			journal = append([]byte(good), journal...)
		}
		k, ok := parseJournal(journal, int64(there), bootID())
		if !ok {
			return // the download begins anew
		}
		present := int64(0)
		for i, c := range k.plan.chunks {
			start, end := k.plan.bounds(i)
			if c.got < 0 || c.got > end-start || c.got > 0 && start+c.got > int64(there) {
				t.Fatalf("chunk %d has %d bytes, of a file of %d", i, c.got, there)
			}
			present += c.got
		}
		if present != k.plan.present || present > int64(there) || k.hashed < 0 || k.hashed > k.plan.prefix() {
			t.Fatalf("%d bytes are said to be there and %d to be hashed: %d of %d are", k.plan.present, k.hashed, present, there)
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

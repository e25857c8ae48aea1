package fetch

import (
	"context"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestImpossibleOptions(t *testing.T) {
	s, asked := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { content(w, r, noise(10), nil) })
	require.NoError(t, s.Validate())
	for name, change := range map[string]func(s *Source){
		"connections must":        func(s *Source) { s.Connections = -1 },
		"not 65":                  func(s *Source) { s.Connections = 65 },
		"bytes of a chunk":        func(s *Source) { s.Chunk = -1 },
		"not 9223372036854775807": func(s *Source) { s.Chunk = math.MaxInt64 },
		"largest archive":         func(s *Source) { s.MaxBytes = -1 },
		"attempts":                func(s *Source) { s.Policy.Attempts = 0 },
		"not 21":                  func(s *Source) { s.Policy.Attempts = 21 },
		"pause":                   func(s *Source) { s.Policy.Pause = -1 },
		"stall":                   func(s *Source) { s.Policy.Stall = 0 },
		"rate":                    func(s *Source) { s.Policy.Rate = -1 },
		"total":                   func(s *Source) { s.Policy.Total = -1 },
		"a client":                func(s *Source) { s.Client = nil },
		"the paths":               func(s *Source) { s.Archive = nil },
		`"" is not of the form`:   func(s *Source) { s.URL = "" },
		`"ftp://`:                 func(s *Source) { s.URL = "ftp://example.com/o/r" },
		`"/o/r" is not`:           func(s *Source) { s.URL = "/o/r" },
		`"http:///o/r" is not`:    func(s *Source) { s.URL = "http:///o/r" },
		`"the URL" is not`:        func(s *Source) { s.URL = "http://user:hunter2@[::1" },
	} {
		t.Run(name, func(t *testing.T) {
			bad := s
			change(&bad)
			_, opened := bad.Open(t.Context(), "7.14.3", rootOf(t, t.TempDir()), ".", Digest{})
			_, read := bad.Digest(t.Context(), "7.14.3")
			_, newest := bad.Newest(t.Context(), testVersion)
			for _, err := range []error{bad.Validate(), opened, read, newest} {
				require.ErrorContains(t, err, name)
				require.NotContains(t, err.Error(), "hunter2")
			}
		})
	}
	require.Zero(t, asked.Load())
}

func TestArchitecture(t *testing.T) {
	s := Source{URL: "http://source.test/o/r/", Archive: testArchive}
	require.Equal(t, "http://source.test/o/r/releases/download/v7.14.3/concourse-7.14.3-linux-"+runtime.GOARCH+".tgz", s.ArchiveURL("7.14.3"))
}

// Most archives have come and gone before the disk is made to write them.
func TestFirstSyncIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var at []time.Duration
		done := make(chan error)
		go func() {
			done <- syncNowAndThen(ctx, firstSync, func() error {
				at = append(at, time.Since(start))
				if len(at) == 2 {
					time.Sleep(10 * time.Second) // a slow disk
				}
				return nil
			})
		}()
		time.Sleep(88 * time.Second)
		cancel()
		require.NoError(t, <-done)
		require.Equal(t, []time.Duration{30 * time.Second, 35 * time.Second, 75 * time.Second, 80 * time.Second, 85 * time.Second}, at)
	})
}

func TestShortDownloadIsNotSynced(t *testing.T) {
	data := noise(testChunk * 8)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) })
	s.Chunk = testChunk
	dir := t.TempDir()
	_, _, _, err := readIn(t, s, dir, digestOf(data))
	require.NoError(t, err)
	journal, err := os.ReadFile(filepath.Join(dir, journalName))
	require.NoError(t, err)
	require.EqualValues(t, len(data), Kept(rootOf(t, dir), "."))
	require.Zero(t, strings.Count(string(journal), `"synced"`))
}

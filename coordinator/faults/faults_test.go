// Package faults shows that a release is installed exactly once, or not at all,
// on file systems that lie, fill up, lose power or vanish. It uses the public
// face of coordinator only, from processes of its own.
//
// Most of it mounts something. Where that is not possible the tests skip, unless
// it is required: see package needs.
package faults

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// Versions that the tests install; older is there before, where anything is.
const (
	older = "7.14.2"
	newer = "7.14.3"
)

// concourse is a product in GitHub's layout.
var concourse = coordinator.Product{
	Name: "Concourse",
	Archive: func(version, arch string) string {
		return "releases/download/v" + version + "/concourse-" + version + "-linux-" + arch + ".tgz"
	},
	Top:         "concourse",
	Executables: []string{"bin/concourse"},
	Link:        "bin",
}

// marker is what a shared volume has.
const marker = ".shared"

// lease is short, because some tests cannot but wait for it.
const lease = 2 * time.Second

// patience bounds one call of a unit. Whatever the lie, none may take longer.
const patience = 20 * time.Second

// order is what a unit is told to do.
type order struct {
	Do      string // open, ensure, activate or collect
	Version string
}

// answer is what became of an order.
type answer struct {
	Release    coordinator.Release
	Activation coordinator.Activation
	VolumeID   string
	Err        string

	NoSpace, NotMounted, NotInstalled bool // errors.Is(err, coordinator.ErrNoSpace), ...
}

// TestMain lets the test binary be a unit: a process that takes orders.
func TestMain(m *testing.M) {
	if os.Getenv("FAULTS_UNIT") == "" {
		flag.Parse()
		if testing.Short() {
			fmt.Println("skipped with -short: takes minutes, and mounts file systems")
			os.Exit(0)
		}
		os.Exit(m.Run())
	}
	if os.Getenv("FAULTS_STEPS") != "" {
		if err := announceSteps(); err != nil {
			fmt.Fprintln(os.Stderr, "cannot announce steps:", err)
			os.Exit(1)
		}
	}
	var c *coordinator.Coordinator
	orders := json.NewDecoder(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		var o order
		if orders.Decode(&o) != nil {
			os.Exit(0)
		}
		a := obey(&c, o)
		if err := answers.Encode(a); err != nil {
			os.Exit(1)
		}
	}
}

func obey(c **coordinator.Coordinator, o order) (a answer) {
	ctx := context.Background()
	var err error
	if o.Do == "open" || *c == nil {
		*c, err = coordinator.Open(ctx, os.Getenv("FAULTS_ROOT"), coordinator.Options{
			Product: concourse,
			Unit:    os.Getenv("FAULTS_UNIT"),
			Source:  os.Getenv("FAULTS_SOURCE"),
			Marker:  marker,
			Lease:   lease,
			Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
		})
	}
	if err == nil {
		a.VolumeID = (*c).VolumeID()
		switch o.Do {
		case "ensure":
			a.Release, err = (*c).Ensure(ctx, o.Version)
		case "activate":
			a.Activation, err = (*c).Activate(ctx, o.Version)
		case "collect":
			_, err = (*c).Collect(ctx)
		}
	} else {
		*c = nil
	}
	if err != nil {
		a.Err = err.Error()
		a.NoSpace = errors.Is(err, coordinator.ErrNoSpace)
		a.NotMounted = errors.Is(err, coordinator.ErrNotMounted)
		a.NotInstalled = errors.Is(err, coordinator.ErrNotInstalled)
	}
	return a
}

// unit is a process that takes orders, and installs below root.
type unit struct {
	t       *testing.T
	name    string
	cmd     *exec.Cmd
	orders  *json.Encoder
	stdin   io.Closer
	answers chan answer
	log     *logBuffer
}

// logBuffer is written by a unit and read by its test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, root, name, source string, change ...func(*exec.Cmd)) *unit {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	u := &unit{t: t, name: name, cmd: exec.Command(exe), answers: make(chan answer, 1), log: &logBuffer{}}
	u.cmd.Env = append(os.Environ(), "FAULTS_UNIT="+name, "FAULTS_ROOT="+root, "FAULTS_SOURCE="+source)
	u.cmd.Stderr = u.log
	// A child of the unit may sit in a hanging call and keep the pipe open.
	u.cmd.WaitDelay = time.Second
	for _, f := range change {
		f(u.cmd)
	}
	stdin, err := u.cmd.StdinPipe()
	require.NoError(t, err)
	u.orders, u.stdin = json.NewEncoder(stdin), stdin
	stdout, err := u.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, u.cmd.Start())
	go func() {
		defer close(u.answers)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var a answer
			if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
				a.Err = fmt.Sprintf("garbled answer %q", lines.Text())
			}
			u.answers <- a
		}
	}()
	t.Cleanup(u.stop)
	return u
}

// tell gives an order without waiting for the answer.
func (u *unit) tell(do, version string) {
	u.t.Helper()
	require.NoError(u.t, u.orders.Encode(order{do, version}), u.log)
}

// hear waits for the answer to the last order.
func (u *unit) hear() answer {
	u.t.Helper()
	select {
	case a, ok := <-u.answers:
		if !ok {
			u.t.Fatalf("%s died:\n%s", u.name, u.log)
		}
		return a
	case <-time.After(patience):
		u.t.Fatalf("%s does not answer within %v:\n%s", u.name, patience, u.log)
		return answer{}
	}
}

func (u *unit) ask(do, version string) answer {
	u.t.Helper()
	u.tell(do, version)
	return u.hear()
}

// must is ask for what has to succeed.
func (u *unit) must(do, version string) answer {
	u.t.Helper()
	a := u.ask(do, version)
	require.Empty(u.t, a.Err, "%s %s by %s:\n%s", do, version, u.name, u.log)
	return a
}

func (u *unit) stop() {
	u.stdin.Close()
	u.cmd.Process.Kill()
	u.cmd.Wait()
}

// source serves releases in GitHub's layout, and can be made to pause.
type source struct {
	*httptest.Server
	files map[string][]byte // by the last element of the path

	mu      sync.Mutex
	served  int64
	at      int64
	reached chan struct{} // closed when at bytes of archives were served
	resume  chan struct{}
}

func newSource(t *testing.T, size int) *source {
	s := &source{files: map[string][]byte{}}
	for _, v := range []string{older, newer} {
		name := "concourse-" + v + "-linux-amd64.tgz"
		s.files[name] = archive(v, size)
		sum := sha256.Sum256(s.files[name])
		s.files[name+".sha256"] = []byte(hex.EncodeToString(sum[:]) + "  " + name + "\n")
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *source) size(version string) int64 {
	return int64(len(s.files["concourse-"+version+"-linux-amd64.tgz"]))
}

// pause stops all archives once at bytes more of them are on the way. It returns a
// channel that tells when, and what lets them go on.
func (s *source) pause(t *testing.T, at int64) (reached <-chan struct{}, resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served, s.at = 0, at
	s.reached, s.resume = make(chan struct{}), make(chan struct{})
	resume = sync.OnceFunc(func() { close(s.resume) })
	t.Cleanup(resume)
	return s.reached, resume
}

func (s *source) passing(n int) {
	s.mu.Lock()
	if s.resume == nil {
		s.mu.Unlock()
		return
	}
	before := s.served
	s.served += int64(n)
	if before < s.at && s.served >= s.at {
		close(s.reached)
	}
	wait := s.served >= s.at
	resume := s.resume
	s.mu.Unlock()
	if wait {
		<-resume
	}
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := filepath.Base(r.URL.Path)
	data, ok := s.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+name+`"`)
	body := io.ReadSeeker(bytes.NewReader(data))
	if strings.HasSuffix(name, ".tgz") && r.Method == http.MethodGet {
		body = &metered{body, s}
	}
	http.ServeContent(w, r, "", time.Time{}, body)
}

// metered lets a source see what passes, in small pieces.
type metered struct {
	io.ReadSeeker
	s *source
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.ReadSeeker.Read(p[:min(len(p), 16<<10)])
	m.s.passing(n)
	return n, err
}

// content returns the files of a release; noise bytes of it do not compress.
func content(version string, noise int) map[string]string {
	blob := make([]byte, noise)
	rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", version)))).Read(blob)
	return map[string]string{
		"bin/concourse": "#!/bin/sh\necho " + version + "\n",
		"bin/runc":      string(blob),
		"resource-types/mock/resource_metadata.json": `{"type":"mock","version":"` + version + `"}`,
		"fly-assets/fly-linux-amd64.tgz":             "fly " + version,
	}
}

func archive(version string, noise int) []byte {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	files := content(version, noise)
	names := []string{}
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		mode := int64(0o644)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		err := tw.WriteHeader(&tar.Header{Name: "concourse/" + name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(files[name]))})
		if err == nil {
			_, err = io.WriteString(tw, files[name])
		}
		if err != nil {
			panic(err)
		}
	}
	tw.Close()
	gz.Close()
	return buf.Bytes()
}

// complete demands that a release is on the volume, byte for byte and immutable.
func complete(t *testing.T, root, version string, noise int) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Join(root, "releases", version))
	require.NoError(t, err)
	want := content(version, noise)
	for _, name := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Zero(t, info.Mode()&0o222, "%s can be written", name)
		if name == "manifest.json" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Contains(t, want, name)
		require.True(t, string(data) == want[name], "%s has %d bytes, and not those of the archive", name, len(data))
		delete(want, name)
	}
	require.Empty(t, want, "missing in %s", dir)
	require.FileExists(t, filepath.Join(dir, "manifest.json"))
}

// files lists what is below dir and is no directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	names := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	}))
	return names
}

// names lists a directory; one that is not there is empty.
func names(t *testing.T, elem ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(elem...))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	found := []string{}
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}

// active demands that the volume's derived names all speak of version.
func active(t *testing.T, root, version string) {
	t.Helper()
	line, err := os.ReadFile(filepath.Join(root, ".installed_version"))
	require.NoError(t, err)
	require.Equal(t, version+"\n", string(line))
	target, err := os.Readlink(filepath.Join(root, "bin"))
	require.NoError(t, err)
	require.Equal(t, "releases/"+version+"/bin", target)
	require.Equal(t, version, last(t, root))
}

// last returns the version of the highest activation, "" if there is none.
func last(t *testing.T, root string) string {
	t.Helper()
	version := ""
	for n := 1; ; n++ {
		data, err := os.ReadFile(filepath.Join(root, "activations", fmt.Sprint(n)))
		if errors.Is(err, fs.ErrNotExist) {
			return version
		}
		require.NoError(t, err)
		var a coordinator.Activation
		require.NoError(t, json.Unmarshal(data, &a), "activation %d: %q", n, data)
		version = a.Version
	}
}

func mark(t *testing.T, root string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(root, ".shared"), nil, 0o644))
}

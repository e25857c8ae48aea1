package supervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is where a machine says what the containers of a worker need. The zero value says
// nothing.
type Machine struct {
	ResolvConf   string // names its servers
	Resolved     string // names those that systemd-resolved asks
	Certificates string // the directory of the authorities that it trusts
}

// Ubuntu is Machine as Ubuntu has it.
var Ubuntu = Machine{
	ResolvConf: "/etc/resolv.conf", Resolved: "/run/systemd/resolve/resolv.conf", Certificates: "/etc/ssl/certs",
}

// bundle is the file in Machine.Certificates with all of them.
const bundle = "ca-certificates.crt"

// machineView is what the supervisor knows of its machine from look to look.
type machineView struct {
	looked                    time.Time
	last, taken               string // states, when it was looked at last, and of what follows
	nameServers, certificates string // see concourse.Worker
	failure                   string // why the certificates could not be copied
}

// lookAtMachine looks at what a worker's containers take of the machine. A change counts
// once it was seen twice: files are replaced one after another.
func (s *Supervisor) lookAtMachine(seen *Seen) {
	v := &s.machine
	if s.spec.Worker != nil && time.Since(v.looked) >= 10*s.Interval {
		servers, ok := s.Machine.nameServers()
		if !ok {
			servers = v.nameServers
		}
		trusted := s.Machine.trusted()
		state := servers + " " + trusted
		if first := v.looked.IsZero(); state != v.taken && (first || state == v.last) {
			v.take(s, servers, trusted)
			if v.failure == "" {
				v.taken = state
			}
		}
		v.looked, v.last = time.Now(), state
	}
	if v.failure != "" {
		s.status.Stuck = v.failure
	}
	seen.NameServers, seen.Certificates = v.nameServers, v.certificates
}

func (v *machineView) take(s *Supervisor, servers, trusted string) {
	v.nameServers, v.failure = servers, ""
	if trusted == "" {
		v.certificates = ""
		return
	}
	certificates, err := copyCertificates(s.Machine.Certificates, filepath.Join(s.Paths.WorkerDir(), "certificates"))
	if err != nil {
		v.failure = err.Error()
		return
	}
	v.certificates = certificates
}

// nameServers returns those that the worker has to be told, with commas between them: none
// where the machine names some that containers can reach. Concourse drops those in
// 127.0.0.0/8, and lines of more than two words. A machine whose network is away for a
// moment knows none, which is no answer.
func (m Machine) nameServers() (servers string, ok bool) {
	for _, words := range nameServerLines(m.ResolvConf) {
		if len(words) == 2 && reachable(words[1]) {
			return "", true
		}
	}
	var all []string
	for _, words := range nameServerLines(m.Resolved) {
		if reachable(words[1]) && !slices.Contains(all, words[1]) {
			all = append(all, words[1])
		}
	}
	return strings.Join(all, ","), len(all) > 0
}

func nameServerLines(path string) (lines [][]string) {
	data, _ := os.ReadFile(path) // one that is not there names none
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "nameserver" {
			lines = append(lines, words)
		}
	}
	return lines
}

// reachable tells whether a container can reach an address, which is no loopback's, nor one
// of a link of the machine.
func reachable(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && !address.IsLoopback() && address.Zone() == ""
}

// trusted changes whenever the certificates do. It is empty where there are none: containers
// would lose their own.
func (m Machine) trusted() string {
	dir, err := os.Stat(m.Certificates)
	file, fileErr := os.Stat(filepath.Join(m.Certificates, bundle))
	if m.Certificates == "" || err != nil || fileErr != nil || file.Size() == 0 {
		return ""
	}
	return fmt.Sprint(dir.ModTime().UnixNano(), file.ModTime().UnixNano(), file.Size())
}

// copyCertificates copies a directory of certificates below another, under the digest of its
// content, and returns the copy.
//
// A web server has a worker copy its directory into a volume once, when the first container
// needs it, and keeps that for as long as the worker has the same path: in its database, so
// that starting the worker anew changes nothing. A new path is what renews it. The copy also
// has no link that leads nowhere, with which every such volume would fail. Old copies stay
// for a worker that still drains; they are small, and go with the unit.
func copyCertificates(from, below string) (string, error) {
	files := map[string][]byte{}
	digest := sha256.New()
	err := filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(from, path)
		if err == nil {
			files[name], err = os.ReadFile(path)
		}
		fmt.Fprintf(digest, "%s\x00%d\x00%s", name, len(files[name]), files[name])
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read certificates: %w", err)
	}
	to := filepath.Join(below, hex.EncodeToString(digest.Sum(nil))[:16])
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	err = os.RemoveAll(to + ".new")
	for name, data := range files {
		path := filepath.Join(to+".new", name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o755)
		}
		if err == nil {
			err = os.WriteFile(path, data, 0o644)
		}
	}
	if err == nil { // a copy that lost its content with the machine's power would be taken for whole
		err = syncTree(to + ".new")
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		return "", fmt.Errorf("copy certificates: %w", err)
	}
	return to, nil
}

// syncTree writes the file system of a directory to its disk: a few hundred files at once.
func syncTree(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

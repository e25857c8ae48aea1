package postgrestest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed image.go
var source []byte

// recipe names what the image is made of: this file.
func recipe() string {
	sum := sha256.Sum256(source)
	return hex.EncodeToString(sum[:6])
}

// administrator is the password of the user postgres.
const administrator = "administrator"

// PostgreSQL does not run as root, and wants a name for its user. The process that a
// container is lives as long as somebody holds its standard input open, and no longer.
const dockerfile = `FROM scratch
COPY root /
COPY --chown=999:999 empty /data
COPY --chown=999:999 empty /tmp
COPY --chown=999:999 empty /var/run/postgresql
USER 999:999
ENV PGDATA=/data LC_ALL=C.UTF-8
RUN ["initdb", "--no-sync", "--username=postgres", "--pwfile=/etc/administrator", "--auth-host=scram-sha-256", "--auth-local=trust"]
ENTRYPOINT ["sh", "-c", "` + start + ` && echo '` + started + `' && read forever"]
`

// started is what a container logs when its server answers, and nothing else runs in it.
const started = "PostgreSQL has started."

// start starts the server, which takes its port from PGPORT, and waits until it answers.
// What the log goes to is what the container logs.
const start = "pg_ctl start --silent --wait --log=/proc/1/fd/2 --options='-c listen_addresses=$ADDRESS -c fsync=off'"

// files of the packages that go into the image: the server with its modules, psql, a shell
// for pg_ctl, and what they read. llvmjit, which is left out, needs a compiler of 100 MB.
var files = []string{
	"usr/lib/postgresql/*/lib/[^l]*.so", "usr/share/postgresql/*/*", "usr/share/zoneinfo", "usr/lib/locale/C.utf8",
}

// programs are found where the distribution has them, and in /bin by these names.
var programs = map[string]string{
	"usr/lib/postgresql/*/bin/initdb": "initdb", "usr/lib/postgresql/*/bin/pg_ctl": "pg_ctl",
	"usr/lib/postgresql/*/bin/postgres": "postgres", "usr/lib/postgresql/*/bin/psql": "psql",
	"bin/dash": "sh", "usr/bin/dash": "sh",
}

// writeContext writes what Docker builds the image from to path, once: the Dockerfile, and
// files of the packages of this machine's distribution. They are unpacked, not installed.
func writeContext(ctx context.Context, path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	work, err := os.MkdirTemp("", "postgrestest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	root := filepath.Join(work, "root")
	if err := unpackPackages(ctx, work, root); err != nil {
		return err
	}
	partial, err := os.CreateTemp(filepath.Dir(path), "partial-")
	if err != nil {
		return err
	}
	defer os.Remove(partial.Name())
	if err := errors.Join(pack(partial, root), partial.Close()); err != nil {
		return fmt.Errorf("cannot pack PostgreSQL: %w", err)
	}
	return os.Rename(partial.Name(), path)
}

// unpackPackages unpacks PostgreSQL, a shell and all that they depend on, also what is
// installed on this machine.
func unpackPackages(ctx context.Context, work, root string) error {
	run := func(name string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.Env = work, append(os.Environ(), "LC_ALL=C")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("cannot run %s: %w\n%s", strings.Join(cmd.Args[:2], " "), err, bytes.TrimSpace(stderr.Bytes()))
		}
		return out, err
	}
	nothing := filepath.Join(work, "status")
	if err := os.WriteFile(nothing, nil, 0o644); err != nil {
		return err
	}
	// With nothing installed, everything would be; and the lists that apt keeps stay as they are.
	plan := []string{"--simulate", "-o", "Dir::State::status=" + nothing, "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
		"install", "--no-install-recommends", "postgresql", "dash"}
	out, err := run("apt-get", plan...)
	if err != nil { // a fresh machine has no lists yet
		if _, err := run("apt-get", "update"); err != nil {
			return err
		}
		if out, err = run("apt-get", plan...); err != nil {
			return err
		}
	}
	download := []string{"download"}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Inst" {
			download = append(download, fields[1])
		}
	}
	if _, err := run("apt-get", download...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	for _, path := range packages {
		if _, err := run("dpkg", "--extract", path, root); err != nil {
			return err
		}
	}
	return err
}

// pack writes the Dockerfile, the chosen files, and the libraries that they link.
func pack(w io.Writer, root string) error {
	p := packer{Writer: tar.NewWriter(w)}
	for name, text := range map[string]string{
		"Dockerfile": dockerfile, "root/etc/passwd": "postgres:x:999:999::/data:/bin/sh\n", "root/etc/administrator": administrator + "\n",
	} {
		if err := p.add(name, []byte(text)); err != nil {
			return err
		}
	}
	if err := p.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "empty/", Mode: 0o700}); err != nil {
		return err
	}
	for pattern, program := range programs {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		for _, path := range found {
			place := strings.TrimPrefix(path, root)
			link := p.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "root/bin/" + program, Linkname: place})
			err = errors.Join(err, link, p.addFile("root"+place, path))
		}
		if err != nil {
			return err
		}
	}
	for _, pattern := range files {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, top := range found {
			err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				name, err := filepath.Rel(root, path)
				if err != nil {
					return err
				}
				return p.addFile(filepath.Join("root", name), path)
			})
			if err != nil {
				return err
			}
		}
	}
	return errors.Join(p.addLibraries(root), p.Close())
}

// packer adds files to an archive and notes which libraries they link.
type packer struct {
	*tar.Writer
	linked []string // names, and paths of loaders
}

func (p *packer) add(name string, content []byte) error {
	err := p.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))})
	if err == nil {
		_, err = p.Write(content)
	}
	return err
}

// addFile adds the file at path. Links that lead to no file are left out, such as to one that
// the configuration of a package makes.
func (p *packer) addFile(name, path string) error {
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if program, err := elf.NewFile(bytes.NewReader(content)); err == nil {
		linked, err := program.ImportedLibraries()
		if err != nil {
			return err
		}
		p.linked = append(p.linked, linked...)
		if section := program.Section(".interp"); section != nil {
			loader, err := section.Data()
			if err != nil {
				return err
			}
			p.linked = append(p.linked, strings.TrimRight(string(loader), "\x00"))
		}
	}
	return p.add(name, content)
}

// addLibraries adds what was linked, and what that links. A loader looks into /lib on every
// architecture.
func (p *packer) addLibraries(root string) error {
	libraries, err := findLibraries(root)
	if err != nil {
		return err
	}
	for i := 0; i < len(p.linked); i++ {
		name := p.linked[i]
		if slices.Contains(p.linked[:i], name) {
			continue
		}
		place := "root/lib/" + name
		if filepath.IsAbs(name) {
			place = "root" + name
		}
		path, found := libraries[filepath.Base(name)]
		if !found {
			return fmt.Errorf("no package has %s", name)
		}
		if err := p.addFile(place, path); err != nil {
			return err
		}
	}
	return nil
}

// findLibraries returns the files below root that can be linked, by their names.
func findLibraries(root string) (map[string]string, error) {
	found := map[string]string{}
	return found, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".so") {
			if file, err := filepath.EvalSymlinks(path); err == nil {
				found[d.Name()] = file
			}
		}
		return err
	})
}

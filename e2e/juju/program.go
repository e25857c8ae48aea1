package juju

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// pushedDir is where files of this host are put in a machine: a tmpfs of the machine,
// which counts neither as its disk nor outlives its boot.
const pushedDir = "/run/ccbench"

// pushedPath is where a program with that content is. The content is part of the name:
// a program that was built anew does not replace one that runs.
func pushedPath(program, sum string) string {
	return pushedDir + "/" + filepath.Base(program) + "-" + sum[:12]
}

// programs knows the SHA-256 of files, and reads again only those that have changed. The
// zero value is ready.
type programs struct {
	mu   sync.Mutex
	sums map[programID]string
}

type programID struct {
	path     string
	size     int64
	modified time.Time
}

func (p *programs) sum(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	id := programID{path, info.Size(), info.ModTime()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if sum, ok := p.sums[id]; ok {
		return sum, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	if p.sums == nil {
		p.sums = map[programID]string{}
	}
	p.sums[id] = hex.EncodeToString(hash.Sum(nil))
	return p.sums[id], nil
}

func (c *Cluster) pushProgram(ctx context.Context, instance, program, sum string) error {
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.push(ctx, instance, f, sum, pushedPath(program, sum), "0755")
}

// receiveScript writes its input to the file $1 if its SHA-256 is $2, with mode $3. A
// stream that broke looks like one that ended, and two may push the same file at once.
const receiveScript = `set -e
new="$1.$$"
trap 'rm -f "$new"' EXIT
mkdir -p -m 0700 "$(dirname "$1")"
cat > "$new"
echo "$2  $new" | sha256sum --check --status
chmod "$3" "$new"
mv "$new" "$1"`

// push puts a content into a file of an instance, whole or not at all.
func (c *Cluster) push(ctx context.Context, instance string, content io.Reader, sum, path, mode string) error {
	_, err := c.lxd.exec(ctx, instance, content, "sh", "-c", receiveScript, "sh", path, sum, mode)
	if failed := (*exitError)(nil); errors.As(err, &failed) && failed.stderr == "" {
		failed.stderr = "not all of it arrived"
	}
	if err != nil {
		return fmt.Errorf("cannot put %s there: %w", path, err)
	}
	return nil
}

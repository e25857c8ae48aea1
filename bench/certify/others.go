package certify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// other is the directory of another run.
type other struct {
	id, dir string
	owner   owner
	ours    bool // the owner can be read
	beat    string
}

// others lists the directories of other runs, whether they live or not.
func (l *place) others() ([]other, error) {
	entries, err := os.ReadDir(l.parent)
	if err != nil {
		return nil, err
	}
	var found []other
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), Prefix)
		if !ok || id == l.id || !e.IsDir() {
			continue
		}
		o := other{id: id, dir: filepath.Join(l.parent, e.Name())}
		data, err := os.ReadFile(filepath.Join(o.dir, ownerFile))
		if err == nil && json.Unmarshal(data, &o.owner) == nil {
			o.ours = o.owner.Program == program
		}
		o.beat = o.sign()
		found = append(found, o)
	}
	return found, nil
}

func (o other) sign() string {
	data, _ := os.ReadFile(filepath.Join(o.dir, beatFile)) // one that is missing is a sign as well
	return string(data)
}

// sweep removes what runs have left that were killed. Those of this machine it knows. Of
// others it knows when they have given no sign of life for long: that is for the function
// it returns, which waits until it can be told.
func (l *place) sweep(ctx context.Context, say func(string, ...any)) func(context.Context) error {
	start := time.Now()
	found, err := l.others()
	if err != nil {
		return func(context.Context) error { return nil } // the checks find out what is wrong
	}
	var doubtful []other
	for _, o := range found {
		switch {
		case !o.ours && !o.empty():
		case o.ours && o.owner.here() && o.owner.alive():
		case o.ours && o.owner.here():
			say("removing what an earlier run has left: %s", o.dir)
			if err := os.RemoveAll(o.dir); err != nil {
				say("cannot remove it: %v", err)
			}
		default:
			doubtful = append(doubtful, o)
		}
	}
	return func(ctx context.Context) error {
		silent := doubtful[:0]
		for _, o := range doubtful {
			if !o.gone() && o.sign() == o.beat {
				silent = append(silent, o)
			}
		}
		if len(silent) == 0 {
			return nil
		}
		rest := l.pace.stale - time.Since(start)
		if rest > 0 {
			say("another run has left %s, or works still: waiting %.0f s for a sign of life", silent[0].dir, rest.Seconds())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
		for _, o := range silent {
			if o.gone() || o.sign() != o.beat {
				continue
			}
			say("removing what an earlier run has left: %s", o.dir)
			if !o.ours {
				_ = os.Remove(o.dir) // if it is still empty
			} else if err := os.RemoveAll(o.dir); err != nil {
				return fmt.Errorf("cannot remove what an earlier run has left: %w", err)
			}
		}
		return nil
	}
}

// empty: a run was killed before it wrote what it is, or is just about to.
func (o other) empty() bool {
	names, err := os.ReadDir(o.dir)
	return err == nil && len(names) == 0
}

func (o other) gone() bool {
	_, err := os.Lstat(o.dir)
	return errors.Is(err, fs.ErrNotExist)
}

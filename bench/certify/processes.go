package certify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// rounds is how many names processes race for, and how often a file is replaced.
const rounds = 50

func raceNames() []string {
	names := make([]string, rounds)
	for i := range names {
		names[i] = fmt.Sprint("claim-", i)
	}
	return names
}

func links(ctx context.Context, r *run, dir string) (string, error) {
	private := func(i int) string { return filepath.Join(dir, fmt.Sprint("own-", i)) }
	for i := range r.Units {
		if err := r.files.Write(private(i), fmt.Append(nil, i), 0o644); err != nil {
			return "", err
		}
	}
	return r.race(ctx, dir, private)
}

func creates(ctx context.Context, r *run, dir string) (string, error) {
	return r.race(ctx, dir, func(int) string { return "create" })
}

// race lets processes make the same names, and wants each name to have one who made it.
func (r *run) race(ctx context.Context, dir string, how func(i int) string) (string, error) {
	actors, end, err := r.startAll(ctx, r.Units)
	if err != nil {
		return "", err
	}
	defer end()
	replies, err := askAll(actors, func(i int) request {
		return request{Do: "race", Path: dir, Names: raceNames(), How: how(i)}
	})
	if err != nil {
		return "", err
	}
	won := make([][]string, len(replies))
	for i, got := range replies {
		won[i] = got.Won
	}
	return oneWinner(won)
}

// oneWinner wants each name to be won by one.
func oneWinner(won [][]string) (string, error) {
	winners := map[string]int{}
	for _, names := range won {
		for _, name := range names {
			winners[name]++
		}
	}
	for _, name := range raceNames() {
		if n := winners[name]; n != 1 {
			return "", fmt.Errorf("%d of %d made the same name", n, len(won))
		}
	}
	return fmt.Sprintf("%d names, %d contenders", rounds, len(won)), nil
}

func renames(ctx context.Context, r *run, dir string) (string, error) {
	path := filepath.Join(dir, "page")
	if err := r.files.Write(path, page(0), 0o644); err != nil {
		return "", err
	}
	other, err := r.start(ctx)
	if err != nil {
		return "", err
	}
	defer other.end()
	if _, err := other.ask(request{Do: "watch", Path: path}); err != nil {
		return "", err
	}
	replaceErr := r.replace(path)
	if _, err := other.ask(request{Do: "watched"}); err != nil || replaceErr != nil {
		return "", errors.Join(replaceErr, err)
	}
	// A release that is there must not be replaced by one that is being installed.
	full, empty := filepath.Join(dir, "full"), filepath.Join(dir, "empty")
	for _, made := range []string{full, filepath.Join(full, "x"), empty} {
		if err := r.files.Mkdir(made); err != nil {
			return "", err
		}
	}
	if r.files.Rename(empty, full) == nil {
		return "", errors.New("a directory that is not empty was replaced")
	}
	return "", nil
}

// replace replaces a page by others, one after the other.
func (r *run) replace(path string) error {
	for i := range rounds {
		next := path + ".next"
		if err := r.files.Write(next, page(i+1), 0o644); err != nil {
			return err
		}
		if err := r.files.Rename(next, path); err != nil {
			return err
		}
	}
	got, err := r.files.Read(path)
	if err == nil && string(got) != string(page(rounds)) {
		err = errors.New("after a rename a file has its old contents")
	}
	return err
}

// settle is how late the coordinator expects to see what another unit has made.
const settle = 1500 * time.Millisecond

func visible(ctx context.Context, r *run, dir string) (string, error) {
	other, err := r.start(ctx)
	if err != nil {
		return "", err
	}
	defer other.end()
	var took []time.Duration
	for i := range 5 {
		path := filepath.Join(dir, fmt.Sprint("file-", i))
		// The other one finds it missing first, which a cache may remember.
		if _, err := other.ask(request{Do: "find", Path: path}); err != nil {
			return "", err
		}
		if err := r.files.Write(path+".new", page(i), 0o644); err != nil {
			return "", err
		}
		if err := r.files.Rename(path+".new", path); err != nil {
			return "", err
		}
		start := time.Now()
		got, err := other.hear()
		if err != nil {
			return "", err
		}
		if string(got.Data) != string(page(i)) {
			return "", errors.New("another process has read something else than what was written")
		}
		took = append(took, time.Since(start))
	}
	if usual := median(took); usual > settle {
		return "", fmt.Errorf("another process saw a new file after %v", usual.Round(time.Millisecond))
	}
	return fmt.Sprintf("after %v at most", slices.Max(took).Round(time.Millisecond)), nil
}

// median is what counts of several: a cache holds each of them back, a busy machine one.
func median(took []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[len(sorted)/2]
}

var errNoExclusion = errors.New("two processes hold one lock")

func locks(ctx context.Context, r *run, dir string) (string, error) {
	path := filepath.Join(dir, "lock")
	holder, err := r.start(ctx)
	if err != nil {
		return "", err
	}
	defer holder.end()
	if got, err := holder.ask(request{Do: "lock", Path: path}); err != nil {
		return "", err
	} else if !got.Got {
		return "", errors.New("nobody has the lock, and it is refused")
	}
	if _, got, err := r.files.Lock(path); err != nil {
		return "", err
	} else if got {
		return "", errNoExclusion
	}
	if _, err := holder.ask(request{Do: "unlock"}); err != nil {
		return "", err
	}
	_, err = r.obtain(ctx, path, 5*time.Second)
	return "", err
}

func locksOfKilled(ctx context.Context, r *run, dir string) (string, error) {
	path := filepath.Join(dir, "lock")
	holder, err := r.start(ctx)
	if err != nil {
		return "", err
	}
	defer holder.end()
	if got, err := holder.ask(request{Do: "lock", Path: path}); err != nil || !got.Got {
		return "", errors.Join(errors.New("the lock is refused"), err)
	}
	holder.kill()
	took, err := r.obtain(ctx, path, 5*time.Second)
	return fmt.Sprintf("after %v", took.Round(time.Millisecond)), err
}

// obtain takes a lock that is to become free, and gives it back.
func (r *run) obtain(ctx context.Context, path string, limit time.Duration) (took time.Duration, err error) {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		held, got, err := r.files.Lock(path)
		took = time.Since(start)
		switch {
		case err != nil:
			return took, err
		case got:
			return took, held.Unlock()
		case took > limit:
			return took, fmt.Errorf("a lock that nobody has is not free after %v", limit)
		case ctx.Err() != nil:
			return took, ctx.Err()
		}
	}
}

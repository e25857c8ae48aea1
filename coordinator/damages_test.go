package coordinator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// damage is done to one name. It gets what was there: the content of a file, or the
// text of a symbolic link. One that makes no sense there returns errNoDamage.
type damage func(name string, old []byte) error

var errNoDamage = errors.New("does not apply")

// content replaces what is there by a file, or a link if it was one.
func content(change func(old []byte) []byte) damage {
	return func(name string, old []byte) error {
		info, err := os.Lstat(name)
		if err != nil {
			return err
		}
		next := change(old)
		if next == nil || bytes.Equal(next, old) {
			return errNoDamage
		}
		if err := os.Remove(name); err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 && 0 < len(next) && len(next) < 4096 && !bytes.Contains(next, []byte{0}) {
			return os.Symlink(string(next), name)
		}
		return errors.Join(os.WriteFile(name, next, 0o644), os.Chmod(name, info.Mode()&0o777))
	}
}

// fields changes the values of a JSON object of some type.
func fields[T any](to string) damage {
	return content(func(old []byte) []byte {
		var object map[string]any
		if json.Unmarshal(old, &object) != nil {
			return nil
		}
		changed := false
		for key, value := range object {
			if _, ok := value.(T); ok {
				object[key], changed = json.RawMessage(to), true
			}
		}
		if !changed {
			return nil
		}
		next, err := json.Marshal(object)
		if err != nil {
			panic(err)
		}
		return next
	})
}

// instead puts something else where a file was.
func instead(make func(name string) error) damage {
	return func(name string, _ []byte) error { return errors.Join(os.RemoveAll(name), make(name)) }
}

func noise(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

var damages = map[string]damage{
	"cut to nothing":   content(func([]byte) []byte { return []byte{} }),
	"cut to a byte":    content(func(old []byte) []byte { return old[:min(1, len(old))] }),
	"cut by half":      content(func(old []byte) []byte { return old[:len(old)/2] }),
	"cut by a byte":    content(func(old []byte) []byte { return old[:max(len(old), 1)-1] }),
	"noise":            content(func(old []byte) []byte { return noise(max(len(old), 8)) }),
	"much noise":       content(func([]byte) []byte { return noise(1 << 20) }),
	"zeros":            content(func(old []byte) []byte { return make([]byte, len(old)) }),
	"lines":            content(func([]byte) []byte { return []byte("a\nb\n\"c\"\n") }),
	"a number":         content(func([]byte) []byte { return []byte("1e308") }),
	"a list":           content(func([]byte) []byte { return []byte(`[{"version":"7.14.2"}]`) }),
	"an empty object":  content(func([]byte) []byte { return []byte(`{}`) }),
	"deep nesting":     content(func([]byte) []byte { return bytes.Repeat([]byte("["), 60_000) }),
	"long link":        instead(func(name string) error { return os.Symlink(strings.Repeat("x/", 2047), name) }),
	"numbers 1e308":    fields[float64]("1e308"),
	"numbers -1":       fields[float64]("-1"),
	"numbers 0":        fields[float64]("0"),
	"numbers huge":     fields[float64]("9223372036854775807"),
	"numbers negative": fields[float64]("-9223372036854775808"),
	"numbers fraction": fields[float64]("0.5"),
	"numbers text":     fields[float64](`"x"`),
	"texts odd":        fields[string](`"../../x\n\u0000y"`),
	"texts empty":      fields[string](`""`),
	"texts number":     fields[string](`7`),
	"lists absurd":     fields[[]any](`[{},{"path":"../../x","size":-1},{"path":"/etc/passwd","mode":4294967295},{"path":"bin"},null]`),
	"objects list":     fields[map[string]any](`[]`),
	"removed":          func(name string, _ []byte) error { return os.RemoveAll(name) },
	"a directory":      instead(func(name string) error { return os.Mkdir(name, 0o755) }),
	"a full directory": instead(func(name string) error { return os.MkdirAll(name+"/sub/sub", 0o755) }),
	"a FIFO":           instead(func(name string) error { return syscall.Mkfifo(name, 0o644) }),
	"a dangling link":  instead(func(name string) error { return os.Symlink("nothing", name) }),
	"a link to itself": instead(func(name string) error { return os.Symlink(filepath.Base(name), name) }),
	"a link out":       instead(func(name string) error { return os.Symlink("/etc/passwd", name) }),
	"a sparse file": instead(func(name string) error {
		return errors.Join(os.WriteFile(name, nil, 0o644), os.Truncate(name, 1<<40))
	}),
}

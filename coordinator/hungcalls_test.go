package coordinator

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// caller is what the unit's calls work with.
type caller struct {
	c     *Coordinator
	v     *View
	root  string
	url   string
	fresh int // versions asked for
}

const hungUnit = "ci/0"

func (u *caller) options() Options {
	return Options{Unit: hungUnit, Source: u.url, Product: concourse, Lease: time.Second,
		// Connections that are kept would be counted.
		Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// version returns one that nobody has installed.
func (u *caller) version() string {
	u.fresh++
	return fmt.Sprintf("8.%d.%d", u.fresh/1000, u.fresh%1000)
}

// mountCall is a call that works on a mount, and what has to be there for it to have
// something to do.
type mountCall struct {
	prepare func(ctx context.Context, u *caller) error
	call    func(ctx context.Context, u *caller) error
}

// mountCalls has every exported function and method that takes a context, but for
// those that need no mount.
var mountCalls = map[string]mountCall{
	"Open": {call: func(ctx context.Context, u *caller) error {
		_, err := Open(ctx, u.root, u.options())
		return err
	}},
	"Look": {call: func(ctx context.Context, u *caller) error {
		_, err := Look(ctx, u.root, concourse)
		return err
	}},
	"Probe": {call: func(ctx context.Context, u *caller) error {
		_, err := Probe(ctx, u.root)
		return err
	}},
	"Coordinator.Ensure": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Ensure(ctx, u.version())
		return err
	}},
	"Coordinator.Recheck": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Recheck(ctx, "7.0.0")
		return err
	}},
	"Coordinator.Use": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Use(ctx, u.version())
		return err
	}},
	"Coordinator.Reinstall": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Reinstall(ctx, "7.0.0")
		return err
	}},
	"Coordinator.Pin": {
		prepare: func(ctx context.Context, u *caller) error {
			_, err := u.c.Pin(ctx, "7.0.0")
			return err
		},
		call: func(ctx context.Context, u *caller) error {
			_, err := u.c.Pin(ctx, "7.0.1")
			return err
		},
	},
	"Coordinator.Activate": {
		prepare: func(ctx context.Context, u *caller) error {
			_, err := u.c.Activate(ctx, "7.0.0")
			return err
		},
		call: func(ctx context.Context, u *caller) error {
			_, err := u.c.Activate(ctx, "7.0.1")
			return err
		},
	},
	"Coordinator.Rollback": {
		prepare: func(ctx context.Context, u *caller) error {
			_, err := u.c.Activate(ctx, "7.0.0")
			if err == nil {
				_, err = u.c.Activate(ctx, "7.0.1")
			}
			return err
		},
		call: func(ctx context.Context, u *caller) error {
			_, err := u.c.Rollback(ctx)
			return err
		},
	},
	"Coordinator.Collect": {
		prepare: func(ctx context.Context, u *caller) error {
			if _, err := u.c.Collect(ctx); err != nil {
				return err
			}
			dir := filepath.Join(u.root, stagingDir, "9.0.0.1.other-1", treeName)
			err := os.MkdirAll(dir, 0o755)
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
		},
		call: func(ctx context.Context, u *caller) error {
			_, err := u.c.Collect(ctx)
			return err
		},
	},
	"Coordinator.Forget": {
		prepare: func(ctx context.Context, u *caller) error { return u.settle("other-2") },
		call:    func(ctx context.Context, u *caller) error { return u.c.Forget(ctx, "other/2") },
	},
	"Coordinator.Leave": {
		prepare: func(ctx context.Context, u *caller) error { return u.settle("ci-0") },
		call:    func(ctx context.Context, u *caller) error { return u.c.Leave(ctx) },
	},
	"Coordinator.WorkerDir": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.WorkerDir(ctx)
		return err
	}},
	"Coordinator.WorkerDirBelow": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.WorkerDirBelow(ctx, filepath.Join(filepath.Dir(u.root), "disk"), nil)
		if errors.Is(err, ErrNoAccess) { // the directories of tests are private
			return nil
		}
		return err
	}},
	"Coordinator.RemoveWorkerDir": {
		prepare: func(ctx context.Context, u *caller) error { return u.settle("ci-0") },
		call:    func(ctx context.Context, u *caller) error { return u.c.RemoveWorkerDir(ctx) },
	},
	"Coordinator.Probe": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Probe(ctx)
		return err
	}},
	"View.Check": {call: func(ctx context.Context, u *caller) error {
		if err := u.v.Check(ctx); err != nil {
			return err
		}
		return u.c.Check(ctx)
	}},
	"View.Units": {call: func(ctx context.Context, u *caller) error {
		_, err := u.v.Units(ctx)
		return err
	}},
	"View.Executable": {call: func(ctx context.Context, u *caller) error {
		return u.v.Executable(ctx, "7.0.0", os.Getuid(), os.Getgid())
	}},
	"View.Current": {call: func(ctx context.Context, u *caller) error {
		_, err := u.v.Current(ctx)
		return err
	}},
	"View.Installed": {call: func(ctx context.Context, u *caller) error {
		_, err := u.v.Installed(ctx, "7.0.0")
		return err
	}},
	"View.Inspect": {call: func(ctx context.Context, u *caller) error {
		_, err := u.v.Inspect(ctx)
		return err
	}},
	"View.Verify": {call: func(ctx context.Context, u *caller) error { return u.v.Verify(ctx, "7.0.0", nil) }},
}

// settle makes what a unit leaves on a volume.
func (u *caller) settle(unit string) error {
	for _, name := range []string{pinsDir + "/" + unit, workerDir + "/" + unit + "/a/file", stagingDir + "/9.0.0.1." + unit + "/file"} {
		name = filepath.Join(u.root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte("7.0.0.1\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Who adds a function that takes a context cannot forget it here.
func TestNoCallOnAMountIsForgotten(t *testing.T) {
	var found []string
	for _, of := range []reflect.Type{reflect.TypeFor[*Coordinator](), reflect.TypeFor[*View]()} {
		for m := range of.Methods() {
			if m.Type.NumIn() < 2 || m.Type.In(1) != reflect.TypeFor[context.Context]() {
				continue
			}
			if _, inView := reflect.TypeFor[*View]().MethodByName(m.Name); of == reflect.TypeFor[*View]() || !inView {
				found = append(found, of.Elem().Name()+"."+m.Name)
			}
		}
	}
	// Functions cannot be found by reflection.
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() || len(f.Type.Params.List) == 0 {
				continue
			}
			first, ok := f.Type.Params.List[0].Type.(*ast.SelectorExpr)
			elsewhere := f.Name.Name == "Newest" || f.Name.Name == "RemoveWorkerDir" // which are about no volume
			if ok && first.Sel.Name == "Context" && !elsewhere {
				found = append(found, f.Name.Name)
			}
		}
	}
	require.ElementsMatch(t, found, slices.Collect(maps.Keys(mountCalls)))
}

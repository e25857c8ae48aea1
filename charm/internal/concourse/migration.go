package concourse

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

// Migration is the service that takes the database of a web server up, or down, to a schema
// with the program of a version. It has the options of the web server that are about the
// database, among them the keys by which that is encrypted. It runs once, for as long as it
// takes.
func (w Web) Migration(p Paths, version string, schema int64) Service {
	given, _ := options.Known(w.Options, version)
	env := w.Database.environment()
	maps.Copy(env, given)
	maps.DeleteFunc(env, func(name, _ string) bool {
		return !strings.HasPrefix(name, "CONCOURSE_POSTGRES_") && !strings.HasSuffix(name, "ENCRYPTION_KEY")
	})
	return Service{
		Unit:        MigrationUnit,
		Description: "Migration of the database with Concourse " + version,
		Process: process(p, MigrationUnit, version, "migrate --migrate-db-to-version="+strconv.FormatInt(schema, 10)) +
			"User=" + User + "\nGroup=" + User + "\n",
		Files: []File{{Path: p.Environment(MigrationUnit), Content: environment(env)}},
	}
}

// stepName is the name of the file of a step up, as the program has it built in. Programs list
// their steps to nobody.
var stepName = regexp.MustCompile(`migrations/([0-9]{10})_[A-Za-z0-9_]+\.up\.(sql|go)`)

// longestStepName is more than any of them has.
const longestStepName = 200

// Steps returns the schemas that the program of an installed release knows, each of which is
// one step from the one before. It reads the program, which takes a while.
func Steps(release string) (steps []int64, err error) {
	file, err := os.Open(filepath.Join(release, "bin", "concourse"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	reader := bufio.NewReaderSize(file, 1<<20)
	for {
		part, err := reader.Peek(reader.Size())
		for _, name := range stepName.FindAllSubmatch(part, -1) {
			step, err := strconv.ParseInt(string(name[1]), 10, 64)
			if err != nil {
				return nil, err
			}
			steps = append(steps, step)
		}
		switch {
		case errors.Is(err, io.EOF):
			slices.Sort(steps)
			return slices.Compact(steps), nil
		case err != nil:
			return nil, fmt.Errorf("list the steps of the schema: %w", err)
		}
		// A name may lie across the end of the part.
		if _, err := reader.Discard(len(part) - longestStepName); err != nil {
			return nil, fmt.Errorf("list the steps of the schema: %w", err)
		}
	}
}

// StepsBetween counts the steps from one schema to another, up or down.
func StepsBetween(steps []int64, from, to int64) (count int) {
	for _, step := range steps {
		if step > min(from, to) && step <= max(from, to) {
			count++
		}
	}
	return count
}

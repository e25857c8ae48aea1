package coordinator

import (
	"context"
	"fmt"
	"net/http"
	"regexp"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
)

// A version becomes part of paths and URLs: nothing else may get through.
var versionForm = regexp.MustCompile(`^v?((?:0|[1-9][0-9]{0,5})\.(?:0|[1-9][0-9]{0,5})\.(?:0|[1-9][0-9]{0,5}))$`)

// ParseVersion returns "7.14.3" for "7.14.3" and for "v7.14.3". Anything else is
// ErrVersion.
func ParseVersion(s string) (string, error) {
	m := versionForm.FindStringSubmatch(s)
	if m == nil {
		return "", fmt.Errorf("%w: %q is not of the form 7.14.3", ErrVersion, s)
	}
	return m[1], nil
}

// Newest asks a source (see Options.Source; empty is DefaultSource) for its
// newest release. A nil client is one with sane limits. Errors are
// ErrUnreachable, ErrNotFound and ErrNotArchive (a page where the answer should
// be).
func Newest(ctx context.Context, client *http.Client, source string) (string, error) {
	if client == nil {
		client = fetch.NewClient()
	}
	if source == "" {
		source = DefaultSource
	}
	version, err := fetch.Source{URL: source, Layout: layout(), Client: client, Policy: fetch.DefaultPolicy}.Newest(ctx)
	if err != nil {
		return "", fmt.Errorf("cannot find the newest release: %w%s", err, remedy(err))
	}
	return version, nil
}

// layout is how releases and their archives are named.
func layout() fetch.Layout {
	return fetch.Layout{
		Archive: func(version, arch string) string {
			return "releases/download/v" + version + "/concourse-" + version + "-linux-" + arch + ".tgz"
		},
		Version: func(tag string) (string, bool) {
			version, err := ParseVersion(tag)
			return version, err == nil
		},
	}
}

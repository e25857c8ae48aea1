package coordinator

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
)

// Product describes what is installed. Name, Archive and Top are required.
type Product struct {
	// Name is for people: "Tool" in "cannot install Tool 1.2.3".
	Name string
	// Archive returns the path of a release's archive below Options.Source, for an
	// architecture as Go names it, such as "amd64". Beside it lies a file with its
	// digest, whose name ends in .sha256 or .sha1.
	Archive func(version, arch string) string
	// Top is the directory that everything in an archive lies in.
	Top string
	// Executables are paths below a release that must be there and be executable.
	Executables []string
	// Link is a directory of a release, such as "bin", to whose copy in the current
	// release a link of that name in the root of the volume leads; empty for none.
	Link string
	// Version reads a version as people write it and returns it as it becomes part of
	// names and URLs, of letters, digits, dots and dashes. nil reads 7.14.3 and
	// v7.14.3. Newest needs versions that are numbers with dots between them.
	Version func(text string) (version string, ok bool)
}

var (
	threeNumbers = regexp.MustCompile(`^(0|[1-9][0-9]{0,5})(\.(0|[1-9][0-9]{0,5})){2}$`)
	// A version becomes part of paths and URLs: nothing else may get through.
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$`)
)

// ParseVersion returns the version that text means. Anything else is ErrVersion.
func (p Product) ParseVersion(text string) (string, error) {
	parse := p.Version
	if parse == nil {
		parse = func(text string) (string, bool) {
			version := strings.TrimPrefix(text, "v")
			return version, threeNumbers.MatchString(version)
		}
	}
	version, ok := parse(text)
	if !ok || !versionForm.MatchString(version) {
		return "", fmt.Errorf("%w: %q is no version of %s", ErrVersion, text, p.Name)
	}
	return version, nil
}

func (p Product) check() error {
	switch {
	case p.Name == "" || !oneLine(p.Name):
		return fmt.Errorf("%w: the product has no name of one line", ErrOptions)
	case p.Archive == nil:
		return fmt.Errorf("%w: nothing tells where the archive of a version of %s is", ErrOptions, p.Name)
	case !plainName(p.Top):
		return fmt.Errorf("%w: %q is no directory of an archive", ErrOptions, p.Top)
	case p.Link != "" && (!plainName(p.Link) || taken(p.Link)):
		return fmt.Errorf("%w: a link %q cannot be in the root of a volume", ErrOptions, p.Link)
	}
	for _, name := range p.Executables {
		if !fs.ValidPath(name) || name == "." || !oneLine(name) {
			return fmt.Errorf("%w: %.80q is no path of an executable below a release", ErrOptions, name)
		}
	}
	return nil
}

// NewTransport returns what makes the requests where Options.Client is nil. It limits each
// step of a request, but not its whole length, and takes proxies from the environment.
func NewTransport() *http.Transport { return fetch.NewClient().Transport.(*http.Transport) }

// Newest asks a source (see Options.Source), a repository on GitHub or on a server
// with its API, for its highest stable version. A nil client is one with sane limits.
// Errors are ErrUnreachable, ErrUnauthorized, ErrNotFound, and ErrNotArchive for a page
// where the answer should be.
func Newest(ctx context.Context, client *http.Client, p Product, source, token string) (string, error) {
	if client == nil {
		client = fetch.NewClient()
	}
	version, err := fetch.Source{URL: source, Archive: p.Archive, Client: client, Policy: fetch.DefaultPolicy, Token: token}.Newest(ctx, p.ParseVersion)
	return version, failed("find the newest release of", p.Name, err)
}

package coordinator

import (
	"context"
	"net/http"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
)

// maxArchive is ten times the largest release known; an archive that is larger, or that
// does not end, is none.
const maxArchive = 8 << 30

// archives is where releases come from.
func archives(o Options) fetch.Source {
	return fetch.Source{
		URL: o.Source, Archive: o.Product.Archive, Client: o.Client, Policy: fetch.DefaultPolicy,
		Token: o.Token, Connections: o.Connections, Chunk: o.Chunk, MaxBytes: maxArchive,
	}
}

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

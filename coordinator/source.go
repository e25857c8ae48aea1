package coordinator

import (
	"context"
	"net/http"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
)

// archives is where releases come from.
func archives(o Options) fetch.Source {
	return fetch.Source{
		URL: o.Source, Client: o.Client, Policy: fetch.DefaultPolicy,
		Token: o.Token, Connections: o.Connections, Chunk: o.Chunk,
	}
}

// Newest asks a source (see Options.Source), a repository on GitHub or on a server
// with its API, for its highest stable version. A nil client is one with sane limits.
// Errors are ErrUnreachable, ErrNotFound, ErrNotArchive (a page where the answer
// should be) and ErrVersion.
func Newest(ctx context.Context, client *http.Client, p Product, source, token string) (string, error) {
	if client == nil {
		client = fetch.NewClient()
	}
	tag, err := fetch.Source{URL: source, Client: client, Policy: fetch.DefaultPolicy, Token: token}.Newest(ctx)
	if err == nil {
		tag, err = p.ParseVersion(tag)
	}
	if err != nil {
		return "", failed("find the newest release of", p.Name, err)
	}
	return tag, nil
}

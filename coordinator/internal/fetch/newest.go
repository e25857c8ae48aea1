package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// release is what the API says about one.
type release struct {
	Tag        string `json:"tag_name"`
	Draft      bool   `json:"draft"`
	Prerelease bool   `json:"prerelease"`
}

// Newest returns the highest version among the last hundred releases, drafts and
// prereleases apart. Where there is no list of releases it is the latest one. A
// version is numbers with dots between them; parse returns an error for tags of
// prereleases and of other products. Hosts other than github.com are asked in the
// layout of GitHub Enterprise. No such release is ErrNotFound.
func (s Source) Newest(ctx context.Context, parse func(tag string) (version string, err error)) (string, error) {
	if err := s.Validate(); err != nil {
		return "", err
	}
	u, _ := url.Parse(s.URL) // as Validate did
	repository := strings.Trim(u.Path, "/")
	if strings.Count(repository, "/") != 1 {
		return "", fmt.Errorf("%w: %s is not of the form https://HOST/OWNER/REPOSITORY", ErrUnreachable, u.Redacted())
	}
	prefix := "/api/v3"
	if u.Host == "github.com" {
		u.Host, prefix = "api.github.com", "/"
	}
	u.Path = path.Join(prefix, "repos", repository, "releases")
	api := u.String()
	var releases []release
	err := s.readJSON(ctx, api+"?per_page=100", &releases)
	if errors.Is(err, ErrNotFound) {
		releases = make([]release, 1)
		err = s.readJSON(ctx, api+"/latest", &releases[0])
	}
	if err != nil {
		return "", err
	}
	newest, best := "", []int(nil)
	for _, r := range releases {
		version, err := parse(r.Tag)
		if n := numbers(version); err == nil && !r.Draft && !r.Prerelease && slices.Compare(n, best) > 0 {
			newest, best = version, n
		}
	}
	if newest == "" {
		return "", fmt.Errorf("%s: %w: none is stable and has a version", redact(api), ErrNotFound)
	}
	return newest, nil
}

func (s Source) readJSON(ctx context.Context, url string, answer any) error {
	data, err := s.readFile(ctx, url)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return unreachable(url, fmt.Errorf("the answer is none of GitHub's: %w", err))
	}
	return nil
}

// numbers reads a version, which is to be compared by number.
func numbers(version string) []int {
	var all []int
	for part := range strings.SplitSeq(version, ".") {
		n, _ := strconv.Atoi(part) // the caller's parser passes nothing else
		all = append(all, n)
	}
	return all
}

package concourse

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/oauth2"
)

// API is the web server of this unit, as its administrator sees it.
type API struct {
	url    string
	client *http.Client
}

// NewAPI logs in when it is first used, and again when that has expired.
func NewAPI(client *http.Client, web Web) *API {
	base := fmt.Sprintf("http://127.0.0.1:%d", web.Port)
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
	authorized := oauth2.NewClient(ctx, oauth2.ReuseTokenSource(nil, login{ctx, base, web.AdminUser, web.Keys.AdminPassword}))
	authorized.Timeout = client.Timeout
	return &API{url: base, client: authorized}
}

type login struct {
	ctx                 context.Context // with the client to use
	url, user, password string
}

// Token logs in as fly does: the client's name and secret are those of fly's source.
func (l login) Token() (*oauth2.Token, error) {
	config := oauth2.Config{
		ClientID: "fly", ClientSecret: "Zmx5",
		Endpoint: oauth2.Endpoint{TokenURL: l.url + "/sky/issuer/token", AuthStyle: oauth2.AuthStyleInHeader},
		Scopes:   []string{"openid", "profile", "email", "federated:id", "groups"},
	}
	token, err := config.PasswordCredentialsToken(l.ctx, l.user, l.password)
	if err != nil {
		return nil, fmt.Errorf("log in to the web server: %w", err)
	}
	return token, nil
}

// ListedWorker is a worker as the web server lists it.
type ListedWorker struct {
	Name    string `json:"name"`
	State   string `json:"state"` // such as Running
	Address string `json:"addr"`  // of the web server that it has registered with, and a port; empty for one that has landed
	Version string `json:"version"`
}

// States of a worker.
const (
	Running = "running"
	Stalled = "stalled" // not heard of for 30 s
	Landing = "landing" // ends with its builds, and takes no others
	Landed  = "landed"  // its builds have ended
)

// Workers lists all workers.
func (a *API) Workers(ctx context.Context) ([]ListedWorker, error) {
	var workers []ListedWorker
	body, err := a.do(ctx, http.MethodGet, "/api/v1/workers")
	if err == nil {
		err = json.Unmarshal(body, &workers)
	}
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	return workers, nil
}

// Prune has the web server forget a worker that does not run any more. One that it does
// not know is no error.
func (a *API) Prune(ctx context.Context, name string) error {
	_, err := a.do(ctx, http.MethodPut, "/api/v1/workers/"+url.PathEscape(name)+"/prune")
	if err != nil {
		return fmt.Errorf("prune worker %s: %w", name, err)
	}
	return nil
}

func (a *API) do(ctx context.Context, method, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, a.url+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	switch {
	case method == http.MethodPut && response.StatusCode == http.StatusNotFound:
		return nil, nil
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}

var unitNumber = regexp.MustCompile(`^[0-9]+$`)

// IsWorkerOf tells whether a worker has the name of a unit of an application.
func IsWorkerOf(worker, application string) bool {
	number, ok := strings.CutPrefix(worker, application+"-")
	return ok && unitNumber.MatchString(number)
}

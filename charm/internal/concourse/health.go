package concourse

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// WebVersion asks a web server which version it runs.
func WebVersion(ctx context.Context, client *http.Client, port int) (string, error) {
	var info struct {
		Version string `json:"version"`
	}
	_, body, err := request(ctx, client, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/api/v1/info", port))
	if err == nil {
		err = json.Unmarshal(body, &info)
	}
	return info.Version, err
}

// WebAnswers tells whether the web server at an address, host:port, answers as it should.
// An error is that nothing answers at all.
func WebAnswers(ctx context.Context, client *http.Client, address string) (bool, error) {
	status, _, err := request(ctx, client, http.MethodGet, "http://"+address+"/api/v1/info")
	if status == 0 {
		return false, err
	}
	return status == http.StatusOK, nil
}

// WorkerHealthy returns an error unless the worker's parts all answer.
func WorkerHealthy(ctx context.Context, client *http.Client, port int) error {
	_, _, err := request(ctx, client, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port))
	return err
}

// request returns the status of an answer, 0 for none, and what it says. One that is not
// 200 OK is an error.
func request(ctx context.Context, client *http.Client, method, url string) (status int, body []byte, err error) {
	question, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, nil, err
	}
	answer, err := client.Do(question)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err = io.ReadAll(io.LimitReader(answer.Body, 16<<20))
	if answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, question.URL.Path, answer.Status, strings.TrimSpace(string(body)))
	}
	return answer.StatusCode, body, err
}

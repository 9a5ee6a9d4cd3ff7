package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

// prepare is the init container: this program and the template, where the others find them.
func prepare() {
	content, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(programFile, content, 0o755)
	}
	if err == nil {
		err = os.WriteFile(templateFile, []byte(os.Getenv("ARGO_TEMPLATE")), 0o644)
	}
	if err == nil {
		err = stageScript(os.Getenv("ARGO_TEMPLATE"))
	}
	if err != nil {
		fail("%v", err)
	}
	say("Start loading input artifacts...")
}

// stageScript puts a script template's source where main's command finds it.
func stageScript(template string) error {
	var parsed struct{ Script *struct{ Source string } }
	if err := json.Unmarshal([]byte(template), &parsed); err != nil || parsed.Script == nil {
		return err
	}
	return os.WriteFile("/argo/staging/script", []byte(parsed.Script.Source), 0o755)
}

// wait is the wait container: when main is over it says so to the API. With a service
// account that has not the right to do so it fails, and the workflow with it.
func wait() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	say("Starting Workflow Executor", "version=stand-in")
	if err := report("false"); err != nil {
		say("failed to patch task result", fmt.Sprintf("error=%q", err))
	}
	for {
		if _, err := os.Stat(folder("main") + "/exitcode"); err == nil {
			break
		}
		select {
		case <-ctx.Done():
			say("main container is not over", "error="+fmt.Sprintf("%q", ctx.Err()))
			_ = report("true")
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	say("Main container completed")
	if err := report("true"); err != nil {
		refuse("%v", err)
		os.Exit(ownFailure)
	}
}

// report creates or changes the pod's WorkflowTaskResult.
func report(complete string) error {
	name := os.Getenv("ARGO_NODE_ID")
	labels := map[string]string{
		"workflows.argoproj.io/workflow":                 os.Getenv("ARGO_WORKFLOW_NAME"),
		"workflows.argoproj.io/report-outputs-completed": complete,
	}
	metadata := map[string]any{"name": name, "labels": labels}
	body := map[string]any{"apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskResult", "metadata": metadata}
	status, answer, err := call(http.MethodPost, "", "application/json", body)
	if err == nil && status == http.StatusConflict {
		status, answer, err = call(http.MethodPatch, "/"+name, "application/merge-patch+json", body)
	}
	if err != nil {
		return err
	}
	if status >= 300 {
		var said struct{ Message string }
		_ = json.Unmarshal(answer, &said)
		return fmt.Errorf("%s", said.Message)
	}
	return nil
}

func call(method, path, kind string, body any) (int, []byte, error) {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return 0, nil, err
	}
	namespace, err := os.ReadFile(account + "namespace")
	if err != nil {
		return 0, nil, err
	}
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return 0, nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	content, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	server := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	url := "https://" + server + "/apis/argoproj.io/v1alpha1/namespaces/" + strings.TrimSpace(string(namespace)) +
		"/workflowtaskresults" + path
	request, err := http.NewRequest(method, url, bytes.NewReader(content))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Content-Type", kind)
	client := &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}},
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

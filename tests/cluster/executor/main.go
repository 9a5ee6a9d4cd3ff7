// What runs in a pod besides the job: a stand-in for Argo's executor, and the process that holds a pod's
// namespaces. One static program with nothing but the standard library, so that its image needs nothing else.
//
// Of Argo's executor it imitates what a program that watches a workflow can see: an init container that puts
// the template and this program on a shared volume, a wait container that reports to the API with the pod's own
// service account, and in the main container a parent of the job's process that forwards signals, looks once a
// second whether the job is over, and writes lines of its own between the job's. It knows no artifacts,
// parameters, sidecars or plugins.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	shared       = "/var/run/argo"
	templateFile = shared + "/template"
	programFile  = shared + "/argoexec"
	// What Argo's executor exits with for reasons of its own.
	ownFailure = 64
)

func main() {
	if len(os.Args) < 2 {
		fail("which part? pause, init, wait, emissary or kill")
	}
	switch os.Args[1] {
	case "pause":
		pause()
	case "init":
		prepare()
	case "wait":
		wait()
	case "emissary":
		_, command, found := cut(os.Args[2:], "--")
		if !found || len(command) == 0 {
			fail("emissary: no command after --")
		}
		os.Exit(emissary(command))
	case "kill":
		kill(os.Args[2:])
	default:
		fail("no such part: %s", os.Args[1])
	}
}

// pause does nothing until a signal ends it. As a pod's first process it also reaps.
func pause() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGCHLD)
	<-signals
}

// say writes a line as Argo's executor does.
func say(message string, fields ...string) {
	line := fmt.Sprintf("time=%s level=INFO msg=%q argo=true", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), message)
	if len(fields) > 0 {
		line += " " + strings.Join(fields, " ")
	}
	fmt.Fprintln(os.Stderr, line)
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "Error: "+format+"\n", values...)
	os.Exit(ownFailure)
}

func cut(words []string, separator string) (before, after []string, found bool) {
	for i, word := range words {
		if word == separator {
			return words[:i], words[i+1:], true
		}
	}
	return words, nil, false
}

// folder is where a container tells the others how it is.
func folder(container string) string { return shared + "/ctr/" + container }

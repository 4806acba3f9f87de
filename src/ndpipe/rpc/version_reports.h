// What operators are told of serving and comparing model versions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ndpipe::rpc {

// What came of asking that readers switch to a version.
struct ServeReport {
  int64_t version = 0;
  bool serves = false;   // readers see it; else a relabel with it has to end first
  int64_t job = 0;       // a relabel with it: of all photos, or of those that it lacks; 0: none
  int64_t labelled = 0;  // in what readers see now
  int64_t failed = 0;
  int64_t pending = 0;
};

struct AccuracyComparison {
  int64_t photos = 0;
  int64_t first_right = 0;
  int64_t second_right = 0;
};
struct ClassComparison {
  std::string label;
  int64_t first = 0;  // photos that the first version gives this label
  int64_t second = 0;
  int64_t both = 0;
};
struct ChangedPhoto {
  std::string photo_id;
  std::string first;  // label; empty: it failed
  std::string second;
  double first_confidence = 0;
  double second_confidence = 0;
  std::string user_label;  // empty: none
  std::string store;
  std::string path;
  std::string origin;
};
// Two versions on the photos that have an outcome in both.
struct VersionComparison {
  int64_t same = 0;
  int64_t changed = 0;
  int64_t only_first = 0;  // photos with an outcome in one of them only
  int64_t only_second = 0;
  AccuracyComparison all;     // against users' labels
  AccuracyComparison unseen;  // on those of the held-out and test parts
  std::vector<ClassComparison> classes;
  std::vector<ChangedPhoto> examples;
};

}  // namespace ndpipe::rpc

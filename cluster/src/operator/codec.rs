//! What [`KnnExec`] is on the wire: a mark and its [`Spec`] as JSON. Its inputs travel by
//! themselves, and all other nodes are Ballista's.

use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use serde::Deserialize;

use super::KnnExec;
use super::spec::{Spec, VERSION};

/// Ballista's codec, which knows [`KnnExec`] as well.
#[derive(Debug, Default)]
pub struct KnnCodec(BallistaPhysicalExtensionCodec);

/// What a [`KnnExec`] begins with. No message of Ballista's begins so: its first byte would be the
/// end of a group that never began.
const MARK: &[u8; 8] = b"fknn-exe";

impl PhysicalExtensionCodec for KnnCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        proto: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(json) = bytes.strip_prefix(MARK) else {
            return self.0.try_decode(bytes, inputs, context, proto);
        };
        let [base, queries] = inputs else {
            return internal_err!("KnnExec has two inputs, not {}", inputs.len());
        };
        let (base, queries) = (Arc::clone(base), Arc::clone(queries));
        Ok(Arc::new(KnnExec::try_new(base, queries, decode(json)?)?))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        proto: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(knn) = node.downcast_ref::<KnnExec>() else {
            return self.0.try_encode(node, bytes, proto);
        };
        bytes.extend_from_slice(MARK);
        match serde_json::to_writer(bytes, knn.spec()) {
            Ok(()) => Ok(()),
            Err(error) => internal_err!("{error}"),
        }
    }
}

/// All that is read of another version's message.
#[derive(Deserialize)]
struct Versioned {
    version: String,
}

fn decode(json: &[u8]) -> Result<Spec> {
    let Ok(Versioned { version }) = serde_json::from_slice(json) else {
        return exec_err!("a KnnExec without a version");
    };
    if version != VERSION {
        // The node is accepted, and its execution ends with an error that says why: the engine does
        // not pass on why a plan could not be read.
        return Ok(Spec::refused(version));
    }
    match serde_json::from_slice(json) {
        Ok(spec) => Ok(spec),
        Err(error) => exec_err!("KnnExec: {error}"),
    }
}
